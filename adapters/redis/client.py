"""The synchronous Redis client for all three kinds of address: one pipelined round trip per node.

Commands are built by a function that receives the :class:`Standing` of the connection that sends them. If that
connection is lost, or leads to the wrong server, they are built again for the next one.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import hiredis
import msgspec

from adapters.redis.address import RedisAddress, RedisEndpoint, RedisSettings
from adapters.redis.connection import Connection, ConnectionLost, Login, open_connection
from adapters.redis.greeting import (
    ANY_TENANT,
    INSPECT_CLOSED_EVERY_S,
    INSPECT_EVERY_S,
    INSPECTION_COMMANDS,
    Command,
    Standing,
    inspection_commands,
    standing_of,
)
from adapters.redis.nodes import Nodes, nodes_of
from adapters.redis.replies import Remedy, exception_for, remedy_for
from adapters.redis.scripts import RENEW_GENERATION, REPAIR, keys_of, with_source
from adapters.secrets.secret_files import read_secret_variable
from schemas.errors import StoreUnavailable
from schemas.store import Generation, TenantMark, decode_generation, generation_key

Keyed: TypeAlias = tuple[str | bytes, Command | None]
"""A key, which determines the node, and its command; None sends nothing and is answered with None."""
Build: TypeAlias = Callable[[Standing], Sequence[Keyed]]
"""Builds the commands for a connection: the same keys in the same order, whatever the standing; may be called again."""
TRIES: Final = 3
REPLICAS_TIMEOUT_MS: Final = 500


class RedisClient:
    """Thread-safe; opens as many connections to a node as there are concurrent callers.

    All methods raise :class:`StoreUnavailable` if Redis does not answer or has a temporary problem, :class:`StoreFull`
    if it has reached `maxmemory`, and :class:`StoreMisconfigured` if someone must fix it.

    With `reading`, a primary is closed if it has fewer live replicas than the address requires, or if the user may not
    inspect it. Redis is also closed if the generation record belongs to a job of another `tenant`; the job's own client
    names its tenant. `on_repair` receives the number of keys removed because they were not strings.
    """

    def __init__(
        self,
        address: RedisAddress,
        password: str | None = None,
        *,
        prefix: str = "",
        reading: bool = False,
        tenant: TenantMark = ANY_TENANT,
        on_repair: Callable[[int], None] = lambda keys: None,
    ) -> None:
        self.prefix: Final = prefix
        self._login = Login.of(address, password, prefix, reading, tenant)
        self._replicas = address.replicas
        self._on_repair = on_repair
        self._nodes: Nodes = nodes_of(self._login)
        self._idle: dict[RedisEndpoint, list[Connection]] = {}
        self._record: tuple[Generation | None, float] = None, 0.0
        self._closed = False

    def run(self, build: Build, *, durable: bool = False, leave: Collection[Remedy] = ()) -> list[Any]:
        """The replies to the commands that `build` makes, in order.

        With `durable`, all writes have reached as many replicas as the address requires. Error replies whose remedy is
        in `leave` stay among the replies, as `hiredis.ReplyError`. Commands may be executed twice, so all must be
        idempotent.
        """
        for _ in range(TRIES - 1):
            try:
                return self._attempt(build, durable, leave)
            except _Retry:
                continue
        try:
            return self._attempt(build, durable, leave)
        except _Retry as again:
            raise again.because from None

    def standing(self) -> Standing:
        """The current standing of all of Redis, read now: closed if any primary is."""
        standings = []
        for connection in self._each_primary():
            standings.append(self._standing(connection))
        closed = [one for one in standings if one.token is None]
        return (closed or standings)[0]

    def renew_generation(self, *, by_force: bool = False) -> str:
        """Write a generation record for Redis' current state; returns the token of whichever writer was first.

        If the record already covers all primaries, its token is returned, unless `by_force`. Only for the job: from
        then on, consents with another token do not count.
        """
        for _ in range(TRIES):
            lives, raw = self._lives()
            known = decode_generation(raw)
            holds = known is not None and set(lives) <= set(known.runs) and not by_force
            if known is not None and holds and self._login.tenant in (known.tenant, ANY_TENANT):
                return known.token
            token = known.token if known is not None and holds else secrets.token_hex(6)
            made = Generation(token, tuple(sorted(lives)), time.time_ns() // 1_000_000, self._login.tenant)
            key = generation_key(self.prefix)
            command = RENEW_GENERATION((key,), raw or b"", msgspec.json.encode(made))
            [won] = self.run(always([(key, command)]), durable=True)
            self._record = None, 0.0
            by_force = False
            if won:
                self._drop_idle()  # their copies of the record are outdated
                return made.token
        raise StoreUnavailable("the generation record changes faster than it can be read")

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key under the prefix with its value, empty if it is not a string; needs `+scan`. May repeat keys."""
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in self.prefix) + "*"
        for connection in self._each_primary():
            cursor = b""
            while cursor != b"0":
                cursor, keys = self._ask_checked(
                    connection, [("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", 1_000)]
                )[0]
                values = self._ask_checked(connection, [("GET", key) for key in keys], leave=(Remedy.REPAIR,))
                yield from ((k, v if isinstance(v, bytes) else b"") for k, v in zip(keys, values, strict=True))

    def all_keys(self) -> Iterator[bytes]:
        """Every key, under any prefix; needs `+scan`. May repeat keys."""
        for connection in self._each_primary():
            cursor = b""
            while cursor != b"0":
                [[cursor, keys]] = self._ask_checked(connection, [("SCAN", cursor or b"0", "COUNT", 1_000)])
                yield from keys

    def ask_each(self, *commands: Command) -> list[list[Any]]:
        """The replies of each primary to commands without a key, such as INFO."""
        return [self._ask_checked(connection, commands) for connection in self._each_primary()]

    def close(self) -> None:
        """Close the connections; those in use are closed when they are returned."""
        self._closed = True
        self._drop_idle()

    # -- connections

    def _attempt(self, build: Build, durable: bool, leave: Collection[Remedy]) -> list[Any]:
        """Try once on the nodes known now. Raises :class:`_Retry` if a retry may succeed at once."""
        taken: dict[RedisEndpoint, _TakenConnection] = {}
        try:
            batches, count = self._batches(build, durable, taken)
            answers: list[Any] = [None] * count
            for batch in batches:
                batch.send()
            for batch in batches:
                self._receive(batch, answers, leave)
        except ConnectionLost as error:
            self._nodes.forget()
            if error.slow or not any(one.reused for one in taken.values()):
                raise
            raise _Retry(error) from None  # the idle connection had been closed
        finally:
            for node, one in taken.items():
                self._give_back(node, one.connection)
        return answers

    def _batches(
        self, build: Build, durable: bool, taken: "dict[RedisEndpoint, _TakenConnection]"
    ) -> tuple[list["_Batch"], int]:
        """Take a connection to each node that is needed, and build its commands."""
        commands, guess = self._first_guess(build, taken)
        if not commands:
            return [], 0
        by_node: dict[RedisEndpoint, list[int]] = {}
        for place, node in enumerate(self._nodes.of([key for key, _ in commands])):
            by_node.setdefault(node, []).append(place)
        batches = []
        for node, places in by_node.items():
            connection = self._take_connection(node, taken).connection
            standing = self._standing(connection)
            is_alike = (standing.token, standing.foreign) == (guess.token, guess.foreign)
            mine = commands if is_alike else build(standing)
            wanted = [(place, command) for place in places if (command := mine[place][1]) is not None]
            batches.append(_Batch(connection, standing, wanted, self._replicas if durable else 0, self.prefix))
        return batches, len(commands)

    def _first_guess(
        self, build: Build, taken: "dict[RedisEndpoint, _TakenConnection]"
    ) -> tuple[Sequence[Keyed], Standing]:
        """Build commands assuming that all nodes have one standing. In a Cluster, keys must be known before nodes."""
        if self._login.address.kind == "cluster":
            record, _ = self._record
            guess = Standing(
                "", None if record is None else record.token
            )  # assume a foreign record only once one was seen
        else:
            guess = self._standing(self._take_connection(self._nodes.all()[0], taken).connection)
        return build(guess), guess

    def _receive(self, batch: "_Batch", answers: list[Any], leave: Collection[Remedy]) -> None:
        """Receive the replies of one node, and handle errors."""
        found = batch.receive()
        for (place, _), answer in zip(batch.wanted, found, strict=True):
            answers[place] = answer
        for (_, command), answer in zip(batch.wanted, found, strict=True):
            if isinstance(answer, hiredis.ReplyError):
                self._handle_error(batch, command, answer, leave)
        if batch.inspects and self._standing(batch.connection).token != batch.standing.token:
            raise _Retry(StoreUnavailable("the generation of Redis has changed"))

    def _handle_error(
        self, batch: "_Batch", command: Command, error: hiredis.ReplyError, leave: Collection[Remedy] = ()
    ) -> None:
        """Raise the exception for an error reply, unless it is left to the caller."""
        remedy = remedy_for(error)
        if remedy in leave:
            return
        raised = exception_for(error, self.prefix)
        if remedy == Remedy.RELOCATE:
            batch.connection.close()
            self._nodes.forget()
            raise _Retry(raised)
        if remedy == Remedy.REMAP:
            self._nodes.forget()
            raise _Retry(raised)
        if remedy == Remedy.REPAIR:
            [removed] = batch.connection.ask([with_source(REPAIR(keys_of(command)))])
            if isinstance(removed, hiredis.ReplyError):
                raise exception_for(removed, self.prefix)
            self._on_repair(removed)
            raise _Retry(raised)
        raise raised

    def _ask_checked(
        self, connection: Connection, commands: Sequence[Command], leave: Collection[Remedy] = ()
    ) -> list[Any]:
        answers = connection.ask(commands)
        for answer in answers:
            if isinstance(answer, hiredis.ReplyError) and remedy_for(answer) not in leave:
                raise exception_for(answer, self.prefix)
        return answers

    def _standing(self, connection: Connection) -> Standing:
        seen = connection.seen
        if seen.elsewhere:
            record = self._record_elsewhere()
        else:
            record = connection.record
            self._record = record, time.monotonic()
        return standing_of(connection.life, seen, record, self._login.replicas_least(), self._login.tenant)

    def _record_elsewhere(self) -> Generation | None:
        """The generation record of a Cluster, from the node that has it; cached for :data:`INSPECT_EVERY_S`."""
        record, at_s = self._record
        if time.monotonic() - at_s >= (INSPECT_CLOSED_EVERY_S if record is None else INSPECT_EVERY_S):
            [node] = self._nodes.of([generation_key(self.prefix)])
            connection = self._inspected_connection(node)
            try:
                if connection.seen.elsewhere:
                    self._nodes.forget()
                    raise StoreUnavailable("the slot of the generation record has moved")
                record = connection.record
                self._record = record, time.monotonic()
            finally:
                self._give_back(node, connection)
        return record

    def _lives(self) -> tuple[list[str], bytes | None]:
        """The lives of all primaries, and the generation record."""
        lives, raw = [], None
        for connection in self._each_primary():
            lives.append(connection.life)
            if not connection.seen.elsewhere:
                raw = connection.seen.raw
        return lives, raw

    def _each_primary(self) -> Iterator[Connection]:
        """A connection to each primary, just checked."""
        for node in self._nodes.all():
            connection = self._inspected_connection(node)
            try:
                yield connection
            finally:
                self._give_back(node, connection)

    def _inspected_connection(self, node: RedisEndpoint) -> Connection:
        """A connection to `node` whose server has just been checked."""
        connection, reused = self._open_or_idle(node)
        if reused:
            try:
                connection.update_inspection(*connection.ask(inspection_commands(self.prefix)))
            except StoreUnavailable:  # the server is gone, or is no longer a primary
                connection.close()
                self._nodes.forget()
                connection = open_connection(self._login, self._nodes.locate(node))
            except BaseException:
                connection.close()
                raise
        return connection

    def _take_connection(
        self, node: RedisEndpoint, taken: "dict[RedisEndpoint, _TakenConnection]"
    ) -> "_TakenConnection":
        if node not in taken:
            taken[node] = _TakenConnection(*self._open_or_idle(node))
        return taken[node]

    def _open_or_idle(self, node: RedisEndpoint) -> tuple[Connection, bool]:
        """A connection to `node`, and whether it is a reused one."""
        idle = self._idle.setdefault(node, [])
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                break
            if not connection.is_stale():
                return connection, True
            connection.close()
        return open_connection(self._login, self._nodes.locate(node)), False

    def _give_back(self, node: RedisEndpoint, connection: Connection) -> None:
        if self._closed or not connection.is_idle():
            connection.close()
        else:
            self._idle.setdefault(node, []).append(connection)

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()


def connect(settings: RedisSettings, tenant: TenantMark = ANY_TENANT) -> RedisClient:
    """The client for the job and its commands. Raises :class:`SettingsError` for a missing secret or TLS files."""
    return RedisClient(
        settings, read_secret_variable(settings.password_variable), prefix=settings.prefix, tenant=tenant
    )


def always(commands: Sequence[Keyed]) -> Build:
    """A :data:`Build` for commands that do not depend on the standing."""
    return lambda _: commands


class _TakenConnection(NamedTuple):
    connection: Connection
    reused: bool


class _Retry(Exception):  # noqa: N818 - not an error yet
    """Signals that a retry may succeed at once."""

    def __init__(self, because: Exception) -> None:
        super().__init__()
        self.because = because


class _Batch:
    """The commands for one node in one round trip: `wanted` holds their positions among all replies."""

    def __init__(
        self,
        connection: Connection,
        standing: Standing,
        wanted: list[tuple[int, Command]],
        replicas: int,
        prefix: str,
    ) -> None:
        self.connection, self.standing, self.wanted = connection, standing, wanted
        self.inspects = connection.age_s() >= (INSPECT_CLOSED_EVERY_S if standing.token is None else INSPECT_EVERY_S)
        self._replicas = replicas
        self._prefix = prefix

    def send(self) -> None:
        """Send all commands; the check of the server comes last, so that it is no older than any reply."""
        commands = [command for _, command in self.wanted]
        if self._replicas:
            commands.append(("WAIT", self._replicas, REPLICAS_TIMEOUT_MS))
        if self.inspects:
            commands += inspection_commands(self._prefix)
        self.connection.send(commands)

    def receive(self) -> list[Any]:
        """The replies to `wanted`.

        If the server does not know a script, all commands are sent again with its source.
        """
        found = self._answers()
        if any(isinstance(one, hiredis.ReplyError) and remedy_for(one) == Remedy.LOAD for one in found):
            self.wanted = [(place, with_source(command)) for place, command in self.wanted]
            self.inspects = False
            self.send()
            found = self._answers()
        return found

    def _answers(self) -> list[Any]:
        extra = bool(self._replicas) + INSPECTION_COMMANDS * self.inspects
        found = self.connection.receive(len(self.wanted) + extra)
        if self.inspects:
            try:
                self.connection.update_inspection(*found[-INSPECTION_COMMANDS:])
            except StoreUnavailable as error:
                self.connection.close()
                raise _Retry(error) from None
        if self._replicas:
            reached = found[len(self.wanted)]
            if isinstance(reached, hiredis.ReplyError):
                raise exception_for(reached, self._prefix)
            if reached < self._replicas:
                raise StoreUnavailable(f"it reached {reached} of {self._replicas} replicas of Redis")
        return found[: len(self.wanted)]
