"""Connections to Redis that reconnect by themselves: to one server, the primary of Sentinels, or a Cluster.

A link that is down fails calls at once, and reconnects in the background with growing pauses: it is the circuit
breaker. A caller waits for Redis at most once, for the address's `timeout_ms`; no caller waits for a connection.

A link shakes hands on each new connection and checks the server again every second (:mod:`adapters.redis.greeting`). It
leaves a server that is not a primary, or reports that it is the wrong one. While the connection is *closed*, no
personal data may be read from it: see :meth:`Links.personal`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

import hiredis
import msgspec

from adapters.redis.address import RedisAddress, RedisEndpoint, parse
from adapters.redis.connection import Login
from adapters.redis.fitness import LOOKS, Fitness, fitness_of
from adapters.redis.greeting import (
    ANY_TENANT,
    INSPECT_CLOSED_EVERY_S,
    INSPECT_EVERY_S,
    INSPECTION_COMMANDS,
    NO_JOB_YET,
    Inspection,
    Standing,
    inspection_commands,
    life_of,
    parse_inspection,
    record_of,
    standing_of,
)
from adapters.redis.nodes import UNPLACED, sentinel_login, slots_in
from adapters.redis.pipe import UNAVAILABLE, OnReply, Pipe, awaited
from adapters.redis.replies import Remedy, code_of, remedy_for
from adapters.redis.slots import SLOTS, slot_of
from schemas.errors import StoreUnavailable
from schemas.store import Generation, TenantMark, generation_key, proof_of

PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 0.5
INSPECTION_AGE_MAX_S: Final = 3 * INSPECT_EVERY_S
"""How long a check stays valid if the loop, or the process, was suspended meanwhile."""
NOT_CONNECTED: Final = Standing("", None, "Redis has not answered yet")
logger = logging.getLogger(__name__)

pack: Final[Callable[[tuple[Any, ...]], bytes]] = hiredis.pack_command
"""Pack a command into bytes."""


class Links(Protocol):
    """Sends commands to Redis."""

    async def open(self) -> None:
        """Connect if possible now; otherwise keep trying."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...

    def ask(self, key: str, command: bytes, on_reply: OnReply) -> None:
        """Send a packed command about `key`, and call `on_reply` with the reply."""
        ...

    def personal(self, key: str) -> Pipe | None:
        """The connection on which personal data under `key` may be read now, by its `proof`.

        None if there is none, or if its Redis may be outdated. Valid until the event loop continues.
        """
        ...

    def is_up(self) -> bool:
        """Whether a command would be sent now."""
        ...

    def closed_because(self) -> str:
        """Why no personal data may be read, if that is so on any connection; else empty."""
        ...

    def complaints(self) -> tuple[str, ...]:
        """Problems of Redis' configuration, in sentences that say how to fix them."""
        ...


def links_to(
    address: RedisAddress, password: str | None = None, prefix: str = "", tenant: TenantMark = ANY_TENANT
) -> Links:
    """The links for `address`; `password` belongs to its `username`, and takes precedence over URLs.

    The generation record is the one under `prefix`; if it belongs to a job of another `tenant`, no personal list is
    read. Raises :class:`SettingsError` if its files cannot be used.
    """
    places = [parse(url) for url in address.urls]
    login = Login.of(address, password, prefix, reading=True, tenant=tenant)
    if address.kind == "cluster":
        return ClusterLinks(login, places)
    if address.kind == "sentinel":
        return Link(login, lambda: _primary(login, places))
    return Link(login, lambda: _given_place(places[0]))


async def _given_place(place: RedisEndpoint) -> RedisEndpoint:
    return place


class _KeptAlive:
    """Something that a background task keeps alive, between opening and closing."""

    def __init__(self) -> None:
        self._keeping: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    async def open(self) -> None:
        """Connect if possible now; otherwise keep trying."""
        if self._keeping is None:
            self._tried = asyncio.Event()
            self._keeping = asyncio.create_task(self._keep_up())
        await self._tried.wait()

    async def close(self) -> None:
        """Stop the task."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None

    async def _keep_up(self) -> None:
        """Connect again and again; set `_tried` after the first attempt."""
        raise NotImplementedError


class Link(_KeptAlive):
    """A connection to the server that `locate` names, renewed whenever it is lost.

    `record` returns the generation record from a check. `on_wrong` is called when keys may have moved.
    """

    def __init__(
        self,
        login: Login,
        locate: Callable[[], Awaitable[RedisEndpoint]],
        record: Callable[[Inspection], Generation | None] = record_of,
        on_wrong: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._login = login
        self._locate = locate
        self._record = record
        self._on_wrong = on_wrong
        self._pipe: Pipe | None = None
        self._personal: Pipe | None = None
        self._run_id = ""
        self._standing = NOT_CONNECTED
        self._fitness = Fitness((), ())

    async def close(self) -> None:
        """Close the connection."""
        await super().close()
        if self._pipe is not None:
            self._pipe.close()

    def ask(self, key: str, command: bytes, on_reply: OnReply) -> None:
        """See :class:`Links`."""
        if self._pipe is None:
            on_reply(StoreUnavailable(UNAVAILABLE))
        else:
            self._pipe.ask(command, on_reply)

    def personal(self, key: str) -> Pipe | None:
        """See :class:`Links`."""
        return self._personal

    def is_up(self) -> bool:
        """See :class:`Links`."""
        return self._pipe is not None and self._pipe.is_open()

    def closed_because(self) -> str:
        """See :class:`Links`."""
        return self._standing.because

    def complaints(self) -> tuple[str, ...]:
        """See :class:`Links`."""
        foreign = () if self._standing.foreign in ("", NO_JOB_YET) else (self._standing.foreign,)
        return foreign + self._fitness.wrong + self._fitness.weak

    async def _keep_up(self) -> None:
        pause_s, said = PAUSE_FIRST_S, False
        while True:
            lost = asyncio.Event()
            try:
                async with asyncio.timeout(self._login.address.connect_timeout_ms / 1000):
                    await self._connect(lost.set)
            except (OSError, StoreUnavailable, hiredis.ReplyError) as error:
                if not said:
                    logger.warning("Redis cannot be reached (%s); serving popular lists until it can", _cause(error))
                said = True
                self._tried.set()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
                continue
            if said:
                logger.warning("Redis is reachable again")
            pause_s, said = PAUSE_FIRST_S, False
            self._tried.set()
            try:
                await self._inspect_regularly(lost)
            finally:
                self._pipe = self._personal = None
                self._standing = NOT_CONNECTED
                self._on_wrong()

    async def _connect(self, on_lost: Callable[[], None]) -> None:
        """Connect and log in to a primary, and identify its life."""
        pipe = await connect(self._login, await self._locate(), on_lost, self._handle_error)
        try:
            # Requested in one turn of the loop, they are sent in one write.
            commands = (("INFO", "server"), *inspection_commands(self._login.prefix), *LOOKS)
            server, *answers = [await future for future in [_future(pipe, one) for one in commands]]
            replies, fit = answers[:INSPECTION_COMMANDS], answers[INSPECTION_COMMANDS:]
            for answer in (server, *replies):
                if isinstance(answer, StoreUnavailable):
                    raise answer
            seen = parse_inspection(*replies, reading=True)
            self._run_id = life_of(server, seen).partition(".")[0]
        except BaseException:
            pipe.close()
            raise
        self._note_fitness(fit)
        self._pipe = pipe
        self._take(pipe, seen)

    def _note_fitness(self, fit: list[Any]) -> None:
        """Log problems of the server's configuration when they first appear."""
        if not all(isinstance(one, bytes) for one in fit):
            return
        found = fitness_of(*fit)
        if found != self._fitness:
            for line in found.wrong + found.weak:
                logger.error("%s", line)
        self._fitness = found

    async def _inspect_regularly(self, lost: asyncio.Event) -> None:
        """Check the server until the connection is lost or closed."""
        pipe = self._pipe
        assert pipe is not None
        while not lost.is_set():
            every_s = INSPECT_CLOSED_EVERY_S if self._standing.token is None else INSPECT_EVERY_S
            try:
                async with asyncio.timeout(every_s):
                    await lost.wait()
            except TimeoutError:
                await self._inspect(pipe)

    async def _inspect(self, pipe: Pipe) -> None:
        asked = [_future(pipe, command) for command in inspection_commands(self._login.prefix)]
        answers = [await future for future in asked]
        if any(isinstance(answer, StoreUnavailable) for answer in answers):
            return  # lost: the loop notices
        try:
            self._take(pipe, parse_inspection(*answers, reading=True))
        except (StoreUnavailable, hiredis.ReplyError) as error:
            logger.warning("leaving a Redis server: %s", _cause(error))
            pipe.close()

    def _take(self, pipe: Pipe, seen: Inspection) -> None:
        """Update the standing of the connection from a check."""
        life = seen.life(self._run_id)
        before, self._standing = (
            self._standing,
            standing_of(life, seen, self._record(seen), self._login.replicas_least(), self._login.tenant),
        )
        token, because = self._standing.token, self._standing.because
        if because and because != before.because:
            logger.warning("personal lists are not read from Redis: %s", because)
        elif before.because and before is not NOT_CONNECTED and not because:
            logger.warning("personal lists are read from Redis again")
        pipe.proof = b"" if token is None else proof_of(token)
        pipe.good_until_s = asyncio.get_running_loop().time() + INSPECTION_AGE_MAX_S
        self._personal = None if token is None else pipe

    def _handle_error(self, error: hiredis.ReplyError) -> bool:
        """Whether an error reply ends the connection."""
        remedy = remedy_for(error)
        if remedy == Remedy.REMAP:
            self._on_wrong()
        return remedy == Remedy.RELOCATE


async def connect(
    login: Login,
    place: RedisEndpoint,
    on_lost: Callable[[], None] = lambda: None,
    on_error: Callable[[hiredis.ReplyError], bool] = lambda error: False,
) -> Pipe:
    """An open connection that has logged in, and whose server answers."""
    loop = asyncio.get_running_loop()
    _, pipe = await loop.create_connection(
        lambda: Pipe(login.timeout_s(), on_lost, on_error), place.host, place.port, ssl=login.tls if place.tls else None
    )
    try:
        for command in login.commands(place):
            await awaited(pipe.ask, pack(command))
        await _answers(pipe)
    except BaseException:
        pipe.close()
        raise
    return pipe


def _future(pipe: Pipe, command: tuple[Any, ...]) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    pipe.ask(pack(command), future.set_result)
    return future


async def _answers(pipe: Pipe) -> None:
    """Return once the server answers commands; the user need not have the right to PING."""
    try:
        await awaited(pipe.ask, pack(("PING",)))
    except hiredis.ReplyError as error:
        if code_of(error) != "NOPERM":
            raise


def _cause(error: Exception) -> str:
    """A loggable description of an error: the code of Redis' reply, never its text, which may contain sent data."""
    if isinstance(error, hiredis.ReplyError):
        return code_of(error)
    return str(error) if isinstance(error, StoreUnavailable) else type(error).__name__


async def _primary(login: Login, sentinels: Iterable[RedisEndpoint]) -> RedisEndpoint:
    """Locate the primary, by the first Sentinel that knows it; raises :class:`StoreUnavailable`."""
    asking = sentinel_login(login)
    for sentinel in sentinels:
        try:
            pipe = await connect(asking, msgspec.structs.replace(sentinel, database=0))
        except (OSError, StoreUnavailable, hiredis.ReplyError):
            continue
        try:
            found = await awaited(pipe.ask, pack(("SENTINEL", "get-master-addr-by-name", login.address.service)))
        except (StoreUnavailable, hiredis.ReplyError):
            continue
        finally:
            pipe.close()
        if found is not None:
            host, port = found
            return RedisEndpoint(host.decode(), int(port), sentinel.database, sentinel.tls, None, None)
    raise StoreUnavailable("no Sentinel knows the primary")


class ClusterLinks(_KeptAlive):
    """A link to each primary of a Cluster. Slots are looked up again when a node reports that one has moved."""

    def __init__(self, login: Login, seeds: list[RedisEndpoint]) -> None:
        super().__init__()
        self._login = login
        self._seeds = seeds
        self._nodes: dict[RedisEndpoint, Link] = {}
        self._slots: list[Link | None] = [None] * SLOTS
        self._moved = asyncio.Event()
        self._record: tuple[Generation | None, float] = None, 0.0

    async def close(self) -> None:
        """Close all connections."""
        await super().close()
        await asyncio.gather(*(link.close() for link in self._nodes.values()))

    def ask(self, key: str, command: bytes, on_reply: OnReply) -> None:
        """See :class:`Links`. A command answered with MOVED fails, and triggers a new lookup of slots."""
        link = self._slots[slot_of(key)]
        if link is None:
            self._moved.set()
            on_reply(StoreUnavailable("no node serves this slot"))
        else:
            if not link.is_up():  # a replica may have replaced it
                self._moved.set()
            link.ask(key, command, on_reply)

    def personal(self, key: str) -> Pipe | None:
        """See :class:`Links`."""
        link = self._slots[slot_of(key)]
        if link is None or not link.is_up():
            self._moved.set()
            return None
        return link.personal(key)

    def is_up(self) -> bool:
        """See :class:`Links`."""
        return any(link.is_up() for link in self._nodes.values())

    def closed_because(self) -> str:
        """See :class:`Links`."""
        found = [link.closed_because() for link in self._nodes.values()]
        return next(filter(None, found), "" if found else NOT_CONNECTED.because)

    def complaints(self) -> tuple[str, ...]:
        """See :class:`Links`."""
        return tuple(dict.fromkeys(line for link in self._nodes.values() for line in link.complaints()))

    async def _keep_up(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            known = await self._find_slots()
            self._tried.set()
            pause_s = PAUSE_FIRST_S if known else min(2 * pause_s, PAUSE_MAX_S)
            await asyncio.sleep(pause_s)  # limits lookups to a few per second
            if known:
                self._moved.clear()
                await self._moved.wait()

    async def _find_slots(self) -> bool:
        """Ask the known nodes, then the seeds; returns whether one answered."""
        for place in dict.fromkeys([*self._nodes, *self._seeds]):
            try:
                async with asyncio.timeout(self._login.address.connect_timeout_ms / 1000):
                    pipe = await connect(self._login, place)
                    try:
                        ranges = await awaited(pipe.ask, pack(("CLUSTER", "SLOTS")))
                    finally:
                        pipe.close()
            except (OSError, StoreUnavailable, hiredis.ReplyError):
                continue
            if ranges:
                await self._place_slots(slots_in(ranges, place))
                return True
        return False

    async def _place_slots(self, places: list[RedisEndpoint]) -> None:
        in_use = {place: self._nodes.get(place) or self._link_to(place) for place in dict.fromkeys(places)}
        in_use.pop(UNPLACED, None)
        gone = [link for place, link in self._nodes.items() if place not in in_use]
        self._nodes = in_use
        # First the node that has the generation record, because the others need it.
        owner = in_use.get(places[slot_of(generation_key(self._login.prefix))])
        if owner is not None:
            await owner.open()
        await asyncio.gather(*(link.open() for link in in_use.values()))
        self._slots = [in_use.get(place) for place in places]
        await asyncio.gather(*(link.close() for link in gone))

    def _link_to(self, place: RedisEndpoint) -> Link:
        return Link(self._login, lambda: _given_place(place), self._record_by, self._moved.set)

    def _record_by(self, seen: Inspection) -> Generation | None:
        """The generation record, as last seen on the node that has it."""
        now_s = asyncio.get_running_loop().time()
        if not seen.elsewhere:
            self._record = record_of(seen), now_s
        record, at_s = self._record
        return record if now_s - at_s < INSPECTION_AGE_MAX_S else None
