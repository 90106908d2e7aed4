"""The synchronous client of Redis for all three kinds: one pipelined round trip per node, nothing sent unprepared.

Commands are made by a function that is given the :class:`Standing` of the very connection that they go out on. When
that connection turns out to be lost, or to lead to the wrong server, they are made again for the next one.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import hiredis
import msgspec

from adapters.redis.address import RedisAddress, RedisEndpoint, RedisSettings
from adapters.redis.connection import Connection, ConnectionLost, Login, opened
from adapters.redis.greeting import (
    ANY_TENANT,
    LOOK_CLOSED_EVERY_S,
    LOOK_COMMANDS,
    LOOK_EVERY_S,
    Command,
    Standing,
    look,
    standing_of,
)
from adapters.redis.nodes import Nodes, nodes_of
from adapters.redis.replies import Remedy, raised_for, remedy_for
from adapters.redis.scripts import RENEW_GENERATION, REPAIR, keys_of, whole
from adapters.secrets.secret_files import read_secret_variable
from schemas.errors import StoreUnavailable
from schemas.store import Generation, TenantMark, decode_generation, generation_key

Keyed: TypeAlias = tuple[str, Command | None]
"""A key, which says the node, and the command about it; None asks nothing, and is answered by None."""
Build: TypeAlias = Callable[[Standing], Sequence[Keyed]]
"""Makes commands for a connection: the same keys in the same order, whatever the standing; called again when needed."""
TRIES: Final = 3
REPLICAS_TIMEOUT_MS: Final = 500


class RedisClient:
    """Several threads may share one; it has as many connections to a node as threads that ask at once.

    All methods raise :class:`StoreUnavailable` where Redis does not answer or says what passes by itself,
    :class:`StoreFull` where it has reached `maxmemory`, and :class:`StoreMisconfigured` where somebody must fix it.
    With `reading`, a primary with fewer replicas in touch than the address wants is closed, and so is one whose user
    may not look at it. Where the generation record is that of a job of another `tenant`, Redis is closed; that of the
    job itself names its own.
    `on_repair` is told of each key that was removed because it was no string.
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
        """The answers to what `build` makes, in its order.

        With `durable`, all of it has reached as many replicas as the address wants. Error answers whose remedy is in
        `leave` stay in the answers, as `hiredis.ReplyError`. What is asked may be carried out twice: everything must be
        idempotent.
        """
        for _ in range(TRIES - 1):
            try:
                return self._attempt(build, durable, leave)
            except _Again:
                continue
        try:
            return self._attempt(build, durable, leave)
        except _Again as again:
            raise again.because from None

    def standing(self) -> Standing:
        """How all of Redis stands now, asked anew: closed where one primary is."""
        standings = []
        for connection in self._each_primary():
            standings.append(self._standing(connection))
        closed = [one for one in standings if one.token is None]
        return (closed or standings)[0]

    def renew_generation(self, *, by_force: bool = False) -> str:
        """Write a generation record for Redis as it stands now; the token of whoever was first.

        Where the record holds for all primaries already its token is the answer, unless `by_force`. For the job only:
        from then on consents with another token count no more.
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
                self._drop_idle()  # what they know of the record is old
                return made.token
        raise StoreUnavailable("the generation record changes faster than it can be read")

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key under the prefix with its value, empty where it is no text; needs `+scan`. Some may come twice."""
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in self.prefix) + "*"
        for connection in self._each_primary():
            cursor = b""
            while cursor != b"0":
                cursor, keys = self._plain(connection, [("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", 1_000)])[0]
                values = self._plain(connection, [("GET", key) for key in keys], leave=(Remedy.REPAIR,))
                yield from ((k, v if isinstance(v, bytes) else b"") for k, v in zip(keys, values, strict=True))

    def ask_each(self, *commands: Command) -> list[list[Any]]:
        """The answers of each primary to commands without a key, such as INFO."""
        return [self._plain(connection, commands) for connection in self._each_primary()]

    def close(self) -> None:
        """Close the connections; those in use close when they are given back."""
        self._closed = True
        self._drop_idle()

    # -- connections

    def _attempt(self, build: Build, durable: bool, leave: Collection[Remedy]) -> list[Any]:
        """One try on the nodes as they are known now. Raises :class:`_Again` where another may succeed at once."""
        taken: dict[RedisEndpoint, _Taken] = {}
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
            raise _Again(error) from None  # it had ended while nobody asked
        finally:
            for node, one in taken.items():
                self._give_back(node, one.connection)
        return answers

    def _batches(self, build: Build, durable: bool, taken: "dict[RedisEndpoint, _Taken]") -> tuple[list["_Batch"], int]:
        """Take a connection to each node that is needed, and make what goes out on it."""
        commands, guess = self._first_guess(build, taken)
        if not commands:
            return [], 0
        by_node: dict[RedisEndpoint, list[int]] = {}
        for place, node in enumerate(self._nodes.of([key for key, _ in commands])):
            by_node.setdefault(node, []).append(place)
        batches = []
        for node, places in by_node.items():
            connection = self._taken(node, taken).connection
            standing = self._standing(connection)
            is_alike = (standing.token, standing.foreign) == (guess.token, guess.foreign)
            mine = commands if is_alike else build(standing)
            wanted = [(place, command) for place in places if (command := mine[place][1]) is not None]
            batches.append(_Batch(connection, standing, wanted, self._replicas if durable else 0, self.prefix))
        return batches, len(commands)

    def _first_guess(self, build: Build, taken: "dict[RedisEndpoint, _Taken]") -> tuple[Sequence[Keyed], Standing]:
        """What to send if all nodes stand as one does. In a Cluster, the keys have to be known before the nodes."""
        if self._login.address.kind == "cluster":
            record, _ = self._record
            guess = Standing("", None if record is None else record.token)  # foreign is only what was seen to be
        else:
            guess = self._standing(self._taken(self._nodes.all()[0], taken).connection)
        return build(guess), guess

    def _receive(self, batch: "_Batch", answers: list[Any], leave: Collection[Remedy]) -> None:
        """Take the answers of one node, and judge them."""
        found = batch.receive()
        for (place, _), answer in zip(batch.wanted, found, strict=True):
            answers[place] = answer
        for (_, command), answer in zip(batch.wanted, found, strict=True):
            if isinstance(answer, hiredis.ReplyError):
                self._judge(batch, command, answer, leave)
        if batch.looked and self._standing(batch.connection).token != batch.standing.token:
            raise _Again(StoreUnavailable("the generation of Redis has changed"))

    def _judge(
        self, batch: "_Batch", command: Command, error: hiredis.ReplyError, leave: Collection[Remedy] = ()
    ) -> None:
        """Raise what an error answer comes to, unless it is left to the caller."""
        remedy = remedy_for(error)
        if remedy in leave:
            return
        raised = raised_for(error, self.prefix)
        if remedy == Remedy.RELOCATE:
            batch.connection.close()
            self._nodes.forget()
            raise _Again(raised)
        if remedy == Remedy.REMAP:
            self._nodes.forget()
            raise _Again(raised)
        if remedy == Remedy.REPAIR:
            [removed] = batch.connection.ask([whole(REPAIR(keys_of(command)))])
            if isinstance(removed, hiredis.ReplyError):
                raise raised_for(removed, self.prefix)
            self._on_repair(removed)
            raise _Again(raised)
        raise raised

    def _plain(self, connection: Connection, commands: Sequence[Command], leave: Collection[Remedy] = ()) -> list[Any]:
        answers = connection.ask(commands)
        for answer in answers:
            if isinstance(answer, hiredis.ReplyError) and remedy_for(answer) not in leave:
                raise raised_for(answer, self.prefix)
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
        """The generation record of a Cluster, from the node that has it; as old as a look may be."""
        record, at_s = self._record
        if time.monotonic() - at_s >= (LOOK_CLOSED_EVERY_S if record is None else LOOK_EVERY_S):
            [node] = self._nodes.of([generation_key(self.prefix)])
            connection = self._looked_at(node)
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
        """The lives of all primaries, and the generation record as it stands."""
        lives, raw = [], None
        for connection in self._each_primary():
            lives.append(connection.life)
            if not connection.seen.elsewhere:
                raw = connection.seen.raw
        return lives, raw

    def _each_primary(self) -> Iterator[Connection]:
        """A connection to each primary, just looked at."""
        for node in self._nodes.all():
            connection = self._looked_at(node)
            try:
                yield connection
            finally:
                self._give_back(node, connection)

    def _looked_at(self, node: RedisEndpoint) -> Connection:
        """A connection to `node` whose server has just been looked at."""
        connection, reused = self._open_or_idle(node)
        if reused:
            try:
                connection.look_again(*connection.ask(look(self.prefix)))
            except StoreUnavailable:  # it leads nowhere, or to a server that is no primary any more
                connection.close()
                self._nodes.forget()
                connection = opened(self._login, self._nodes.locate(node))
            except BaseException:
                connection.close()
                raise
        return connection

    def _taken(self, node: RedisEndpoint, taken: "dict[RedisEndpoint, _Taken]") -> "_Taken":
        if node not in taken:
            taken[node] = _Taken(*self._open_or_idle(node))
        return taken[node]

    def _open_or_idle(self, node: RedisEndpoint) -> tuple[Connection, bool]:
        """A connection to `node`, and whether it was used before."""
        idle = self._idle.setdefault(node, [])
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                break
            if not connection.is_stale():
                return connection, True
            connection.close()
        return opened(self._login, self._nodes.locate(node)), False

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
    """The client of the job and its commands. Raises :class:`SettingsError` for a missing secret or TLS files."""
    return RedisClient(
        settings, read_secret_variable(settings.password_variable), prefix=settings.prefix, tenant=tenant
    )


def always(commands: Sequence[Keyed]) -> Build:
    """A :data:`Build` for commands that do not depend on the standing."""
    return lambda _: commands


class _Taken(NamedTuple):
    connection: Connection
    reused: bool


class _Again(Exception):  # noqa: N818 - not an error yet
    """Another try may succeed at once."""

    def __init__(self, because: Exception) -> None:
        super().__init__()
        self.because = because


class _Batch:
    """What goes to one node in one round trip: `wanted` are places among all answers, and commands."""

    def __init__(
        self,
        connection: Connection,
        standing: Standing,
        wanted: list[tuple[int, Command]],
        replicas: int,
        prefix: str,
    ) -> None:
        self.connection, self.standing, self.wanted = connection, standing, wanted
        self.looked = connection.age_s() >= (LOOK_CLOSED_EVERY_S if standing.token is None else LOOK_EVERY_S)
        self._replicas = replicas
        self._prefix = prefix

    def send(self) -> None:
        """Send it all; the look at the server comes last, so that it is no older than any answer."""
        commands = [command for _, command in self.wanted]
        if self._replicas:
            commands.append(("WAIT", self._replicas, REPLICAS_TIMEOUT_MS))
        if self.looked:
            commands += look(self._prefix)
        self.connection.send(commands)

    def receive(self) -> list[Any]:
        """The answers to `wanted`. Scripts that the server does not know are sent whole, all commands once more."""
        found = self._answers()
        if any(isinstance(one, hiredis.ReplyError) and remedy_for(one) == Remedy.LOAD for one in found):
            self.wanted = [(place, whole(command)) for place, command in self.wanted]
            self.looked = False
            self.send()
            found = self._answers()
        return found

    def _answers(self) -> list[Any]:
        extra = bool(self._replicas) + LOOK_COMMANDS * self.looked
        found = self.connection.receive(len(self.wanted) + extra)
        if self.looked:
            try:
                self.connection.look_again(*found[-LOOK_COMMANDS:])
            except StoreUnavailable as error:
                self.connection.close()
                raise _Again(error) from None
        if self._replicas:
            reached = found[len(self.wanted)]
            if isinstance(reached, hiredis.ReplyError):
                raise raised_for(reached, self._prefix)
            if reached < self._replicas:
                raise StoreUnavailable(f"it reached {reached} of {self._replicas} replicas of Redis")
        return found[: len(self.wanted)]
