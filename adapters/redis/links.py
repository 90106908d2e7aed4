"""Connections to Redis that reconnect by themselves: to one server, the primary of Sentinels, or a Cluster.

A link that is down fails calls at once, and tries again in the background with growing pauses: that is the circuit
breaker. Whoever asks waits for Redis at most `timeout_ms` of its address, once; nobody waits for a connection.

A link shakes hands on each new connection and looks at the server again each second (:mod:`adapters.redis.greeting`).
A server that is no primary, or says that it is the wrong one, is left. While what a link leads to is *closed*, nothing
personal may be read from it: see :meth:`Links.personal`.
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
    LOOK_CLOSED_EVERY_S,
    LOOK_COMMANDS,
    LOOK_EVERY_S,
    NO_JOB_YET,
    Look,
    Standing,
    life_of,
    look,
    looked,
    record_of,
    standing_of,
)
from adapters.redis.nodes import UNPLACED, of_sentinels, slots_in
from adapters.redis.pipe import AWAY, Pipe, Then, awaited
from adapters.redis.replies import Remedy, code_of, remedy_for
from adapters.redis.slots import SLOTS, slot_of
from schemas.errors import StoreUnavailable
from schemas.store import Generation, TenantMark, generation_key, proof_of

PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 0.5
LOOK_AGE_MAX_S: Final = 3 * LOOK_EVERY_S
"""So long a look is believed where the loop, or the process, stood still meanwhile."""
NEVER: Final = Standing("", None, "Redis has not answered yet")
logger = logging.getLogger(__name__)

pack: Final[Callable[[tuple[Any, ...]], bytes]] = hiredis.pack_command
"""A command as bytes, to be asked."""


class Links(Protocol):
    """What commands are asked of."""

    async def open(self) -> None:
        """Connect if that is possible now; keep trying if not."""
        ...

    async def close(self) -> None:
        """End all connections."""
        ...

    def ask(self, key: str, command: bytes, then: Then) -> None:
        """Send a packed command about `key`, and call `then` with the answer."""
        ...

    def personal(self, key: str) -> Pipe | None:
        """The connection on which something personal under `key` may be read now, by its `proof`.

        None while there is none, or while it leads to a Redis that may be too old. It holds until the loop runs on.
        """
        ...

    def is_up(self) -> bool:
        """Whether a command would be sent now."""
        ...

    def closed_because(self) -> str:
        """Why nothing personal may be read, where that is so on any connection; else empty."""
        ...

    def complaints(self) -> tuple[str, ...]:
        """What is wrong with the configuration of Redis, in sentences that say how to fix it."""
        ...


def links_to(
    address: RedisAddress, password: str | None = None, prefix: str = "", tenant: TenantMark = ANY_TENANT
) -> Links:
    """The links that `address` asks for; `password` goes with its `username` and comes before one in a URL.

    The generation record is that under `prefix`; where that of a job of another `tenant` is, no personal list is read.
    Raises :class:`SettingsError` where its files cannot be used.
    """
    places = [parse(url) for url in address.urls]
    login = Login.of(address, password, prefix, reading=True, tenant=tenant)
    if address.kind == "cluster":
        return ClusterLinks(login, places)
    if address.kind == "sentinel":
        return Link(login, lambda: _primary(login, places))
    return Link(login, lambda: _at_once(places[0]))


async def _at_once(place: RedisEndpoint) -> RedisEndpoint:
    return place


class _Kept:
    """What a task keeps up, from its opening to its closing."""

    def __init__(self) -> None:
        self._keeping: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    async def open(self) -> None:
        """Connect if that is possible now; keep trying if not."""
        if self._keeping is None:
            self._tried = asyncio.Event()
            self._keeping = asyncio.create_task(self._keep_up())
        await self._tried.wait()

    async def close(self) -> None:
        """Try no more."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None

    async def _keep_up(self) -> None:
        """Connect again and again; set `_tried` when it was tried once."""
        raise NotImplementedError


class Link(_Kept):
    """A connection to the server that `locate` names, again and again.

    `record` is the generation record by a look. `on_wrong` is called where keys may be somewhere else now.
    """

    def __init__(
        self,
        login: Login,
        locate: Callable[[], Awaitable[RedisEndpoint]],
        record: Callable[[Look], Generation | None] = record_of,
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
        self._standing = NEVER
        self._fitness = Fitness((), ())

    async def close(self) -> None:
        """End the connection."""
        await super().close()
        if self._pipe is not None:
            self._pipe.close()

    def ask(self, key: str, command: bytes, then: Then) -> None:
        """See :class:`Links`."""
        if self._pipe is None:
            then(StoreUnavailable(AWAY))
        else:
            self._pipe.ask(command, then)

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
                await self._look_each_second(lost)
            finally:
                self._pipe = self._personal = None
                self._standing = NEVER
                self._on_wrong()

    async def _connect(self, on_lost: Callable[[], None]) -> None:
        """A connection that has logged in, to a primary whose life is known."""
        pipe = await connect(self._login, await self._locate(), on_lost, self._judge)
        try:
            # Asked in one turn, they leave in one write.
            commands = (("INFO", "server"), *look(self._login.prefix), *LOOKS)
            server, *answers = [await future for future in [_future(pipe, one) for one in commands]]
            told, fit = answers[:LOOK_COMMANDS], answers[LOOK_COMMANDS:]
            for answer in (server, *told):
                if isinstance(answer, StoreUnavailable):
                    raise answer
            seen = looked(*told, reading=True)
            self._run_id = life_of(server, seen).partition(".")[0]
        except BaseException:
            pipe.close()
            raise
        self._note_fitness(fit)
        self._pipe = pipe
        self._take(pipe, seen)

    def _note_fitness(self, fit: list[Any]) -> None:
        """Say what is wrong with the server's configuration, when it is first seen to be."""
        if not all(isinstance(one, bytes) for one in fit):
            return
        found = fitness_of(*fit)
        if found != self._fitness:
            for line in found.wrong + found.weak:
                logger.error("%s", line)
        self._fitness = found

    async def _look_each_second(self, lost: asyncio.Event) -> None:
        """Until the connection is lost, or leads to a server that is no primary."""
        pipe = self._pipe
        assert pipe is not None
        while not lost.is_set():
            every_s = LOOK_CLOSED_EVERY_S if self._standing.token is None else LOOK_EVERY_S
            try:
                async with asyncio.timeout(every_s):
                    await lost.wait()
            except TimeoutError:
                await self._look(pipe)

    async def _look(self, pipe: Pipe) -> None:
        asked = [_future(pipe, command) for command in look(self._login.prefix)]
        answers = [await future for future in asked]
        if any(isinstance(answer, StoreUnavailable) for answer in answers):
            return  # lost: the loop sees it
        try:
            self._take(pipe, looked(*answers, reading=True))
        except (StoreUnavailable, hiredis.ReplyError) as error:
            logger.warning("leaving a Redis server: %s", _cause(error))
            pipe.close()

    def _take(self, pipe: Pipe, seen: Look) -> None:
        """From now on the connection stands as a look says."""
        life = seen.life(self._run_id)
        before, self._standing = (
            self._standing,
            standing_of(life, seen, self._record(seen), self._login.replicas_least(), self._login.tenant),
        )
        token, because = self._standing.token, self._standing.because
        if because and because != before.because:
            logger.warning("personal lists are not read from Redis: %s", because)
        elif before.because and before is not NEVER and not because:
            logger.warning("personal lists are read from Redis again")
        pipe.proof = b"" if token is None else proof_of(token)
        pipe.good_until_s = asyncio.get_running_loop().time() + LOOK_AGE_MAX_S
        self._personal = None if token is None else pipe

    def _judge(self, error: hiredis.ReplyError) -> bool:
        """Whether an error answer ends the connection."""
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
    """Return when the server answers commands; a user need not have the right to PING."""
    try:
        await awaited(pipe.ask, pack(("PING",)))
    except hiredis.ReplyError as error:
        if code_of(error) != "NOPERM":
            raise


def _cause(error: Exception) -> str:
    """What may be said of an error: the code of Redis's answer, never its text, which may hold what was sent."""
    if isinstance(error, hiredis.ReplyError):
        return code_of(error)
    return str(error) if isinstance(error, StoreUnavailable) else type(error).__name__


async def _primary(login: Login, sentinels: Iterable[RedisEndpoint]) -> RedisEndpoint:
    """Where the primary is, by the first Sentinel that knows; raises :class:`StoreUnavailable`."""
    asking = of_sentinels(login)
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


class ClusterLinks(_Kept):
    """A link to each primary of a Cluster. Where a slot is, is asked anew when a node says that it moved."""

    def __init__(self, login: Login, seeds: list[RedisEndpoint]) -> None:
        super().__init__()
        self._login = login
        self._seeds = seeds
        self._nodes: dict[RedisEndpoint, Link] = {}
        self._slots: list[Link | None] = [None] * SLOTS
        self._moved = asyncio.Event()
        self._record: tuple[Generation | None, float] = None, 0.0

    async def close(self) -> None:
        """End all connections."""
        await super().close()
        await asyncio.gather(*(link.close() for link in self._nodes.values()))

    def ask(self, key: str, command: bytes, then: Then) -> None:
        """See :class:`Links`. One that is told MOVED fails, and makes the next ones find the slot."""
        link = self._slots[slot_of(key)]
        if link is None:
            self._moved.set()
            then(StoreUnavailable("nobody serves this slot"))
        else:
            if not link.is_up():  # it may have been replaced by one of its replicas
                self._moved.set()
            link.ask(key, command, then)

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
        return next(filter(None, found), "" if found else NEVER.because)

    def complaints(self) -> tuple[str, ...]:
        """See :class:`Links`."""
        return tuple(dict.fromkeys(line for link in self._nodes.values() for line in link.complaints()))

    async def _keep_up(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            known = await self._find_slots()
            self._tried.set()
            pause_s = PAUSE_FIRST_S if known else min(2 * pause_s, PAUSE_MAX_S)
            await asyncio.sleep(pause_s)  # however often slots are missed, nodes are asked a few times a second
            if known:
                self._moved.clear()
                await self._moved.wait()

    async def _find_slots(self) -> bool:
        """Ask the nodes that are known, then the seeds; whether one answered."""
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
        # The node that has the generation record first, for the others need it.
        owner = in_use.get(places[slot_of(generation_key(self._login.prefix))])
        if owner is not None:
            await owner.open()
        await asyncio.gather(*(link.open() for link in in_use.values()))
        self._slots = [in_use.get(place) for place in places]
        await asyncio.gather(*(link.close() for link in gone))

    def _link_to(self, place: RedisEndpoint) -> Link:
        return Link(self._login, lambda: _at_once(place), self._record_by, self._moved.set)

    def _record_by(self, seen: Look) -> Generation | None:
        """The generation record, as it was last seen on the node that has it."""
        now_s = asyncio.get_running_loop().time()
        if not seen.elsewhere:
            self._record = record_of(seen), now_s
        record, at_s = self._record
        return record if now_s - at_s < LOOK_AGE_MAX_S else None
