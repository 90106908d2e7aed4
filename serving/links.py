"""Connections to Redis that come back by themselves: to one server, to the primary of Sentinels, to a Cluster.

A link that is down fails calls at once, and tries again in the background with growing pauses: that is the circuit
breaker. Whoever asks waits for Redis at most `timeout_ms` of its address, once; nobody waits for a connection.
"""

import asyncio
import logging
import ssl
from binascii import crc_hqx
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol

import hiredis
import msgspec

from adapters.redis.address import READ_TIMEOUT_MS, Place, RedisAddress, parse, tls_context
from schemas.errors import StoreUnavailable
from serving.pipe import AWAY, Pipe, Then, awaited

PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 0.5
SLOTS: Final = 16_384
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

    def is_up(self) -> bool:
        """Whether a command would be sent now."""
        ...


class Login(NamedTuple):
    """How to be let in. Never show it: it has a password."""

    address: RedisAddress
    password: str | None
    tls: ssl.SSLContext | None


def links_to(address: RedisAddress, password: str | None = None) -> Links:
    """The links that `address` asks for; `password` goes with its `username` and comes before one in a URL.

    Raises :class:`SettingsError` where its files cannot be used.
    """
    places = [parse(url) for url in address.urls]
    login = Login(address, password, tls_context(address, any(place.tls for place in places)))
    if address.kind == "cluster":
        return ClusterLinks(login, places)
    if address.kind == "sentinel":
        return Link(login, lambda: _primary(login, places))
    return Link(login, lambda: _at_once(places[0]))


async def _at_once(place: Place) -> Place:
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
    """A connection to the server that `locate` names, again and again."""

    def __init__(self, login: Login, locate: Callable[[], Awaitable[Place]]) -> None:
        super().__init__()
        self._login = login
        self._locate = locate
        self._pipe: Pipe | None = None

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

    def is_up(self) -> bool:
        """See :class:`Links`."""
        return self._pipe is not None and self._pipe.is_open()

    async def _keep_up(self) -> None:
        pause_s, said = PAUSE_FIRST_S, False
        while True:
            lost = asyncio.Event()
            try:
                async with asyncio.timeout(self._login.address.connect_timeout_ms / 1000):
                    self._pipe = await connect(self._login, await self._locate(), lost.set)
            except (OSError, StoreUnavailable, hiredis.ReplyError) as error:
                if not said:
                    logger.warning(
                        "Redis cannot be reached (%s); answers are popular lists until it can", _cause(error)
                    )
                said = True
                self._tried.set()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
                continue
            if said:
                logger.warning("Redis can be reached again")
            pause_s, said = PAUSE_FIRST_S, False
            self._tried.set()
            await lost.wait()
            self._pipe = None


async def connect(login: Login, place: Place, on_lost: Callable[[], None]) -> Pipe:
    """An open connection that has logged in, and whose server answers."""
    loop = asyncio.get_running_loop()
    _, pipe = await loop.create_connection(
        lambda: Pipe(login.address.timeout_s(READ_TIMEOUT_MS), on_lost),
        place.host,
        place.port,
        ssl=login.tls if place.tls else None,
    )
    try:
        user, secret = login.address.username or place.username, login.password or place.password
        if secret is not None:
            await awaited(pipe.ask, pack(("AUTH", secret) if user is None else ("AUTH", user, secret)))
        if place.database:
            await awaited(pipe.ask, pack(("SELECT", place.database)))
        await _answers(pipe)
    except BaseException:
        pipe.close()
        raise
    return pipe


async def _answers(pipe: Pipe) -> None:
    """Return when the server answers commands; a user need not have the right to PING."""
    try:
        await awaited(pipe.ask, pack(("PING",)))
    except hiredis.ReplyError as error:
        if not str(error).startswith("NOPERM"):
            raise


def _cause(error: Exception) -> str:
    """What may be said of an error: the code of Redis's answer, never its text, which may hold what was sent."""
    return str(error).partition(" ")[0] if isinstance(error, hiredis.ReplyError) else type(error).__name__


async def _primary(login: Login, sentinels: Iterable[Place]) -> Place:
    """Where the primary is, by the first Sentinel that knows; raises :class:`StoreUnavailable`.

    Sentinels have users of their own: those in their URLs.
    """
    of_sentinels = Login(msgspec.structs.replace(login.address, username=None), None, login.tls)
    for sentinel in sentinels:
        try:
            pipe = await connect(of_sentinels, msgspec.structs.replace(sentinel, database=0), lambda: None)
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
            return Place(host.decode(), int(port), sentinel.database, sentinel.tls, None, None)
    raise StoreUnavailable("no Sentinel knows the primary")


def slot_of(key: str) -> int:
    """The slot of a key: CRC-16 (XMODEM) of its hash tag, or of all of it, as the Redis Cluster specification has it.

    >>> slot_of("123456789"), slot_of("shop:{p1.a}:list") == slot_of("{p1.a}:gone")
    (12739, True)
    """
    begin = key.find("{")
    if begin >= 0:
        end = key.find("}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key.encode(), 0) % SLOTS


def _is_of_slots(answer: Any) -> bool:
    return isinstance(answer, hiredis.ReplyError) and str(answer).startswith(("MOVED", "CLUSTERDOWN"))


class ClusterLinks(_Kept):
    """A link to each primary of a Cluster. Where a slot is, is asked anew when a node says that it moved."""

    def __init__(self, login: Login, seeds: list[Place]) -> None:
        super().__init__()
        self._login = login
        self._seeds = seeds
        self._nodes: dict[tuple[str, int], Link] = {}
        self._slots: list[Link | None] = [None] * SLOTS
        self._moved = asyncio.Event()

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
            return

        def look(answer: Any) -> None:
            # A primary that is away may have been replaced by one of its replicas.
            if isinstance(answer, StoreUnavailable) or _is_of_slots(answer):
                self._moved.set()
            then(answer)

        link.ask(key, command, look)

    def is_up(self) -> bool:
        """See :class:`Links`."""
        return any(link.is_up() for link in self._nodes.values())

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
        first = self._seeds[0]
        known = [Place(host, port, 0, first.tls, first.username, first.password) for host, port in self._nodes]
        for place in [*known, *self._seeds]:
            try:
                async with asyncio.timeout(self._login.address.connect_timeout_ms / 1000):
                    pipe = await connect(self._login, place, lambda: None)
                    try:
                        ranges = await awaited(pipe.ask, pack(("CLUSTER", "SLOTS")))
                    finally:
                        pipe.close()
            except (OSError, StoreUnavailable, hiredis.ReplyError):
                continue
            if ranges:
                await self._place_slots(ranges, place)
                return True
        return False

    async def _place_slots(self, ranges: list[Any], asked: Place) -> None:
        slots: list[Link | None] = [None] * SLOTS
        in_use: dict[tuple[str, int], Link] = {}
        for begin, end, primary, *_ in ranges:
            node = (primary[0] or b"").decode() or asked.host, int(primary[1])
            link = in_use.get(node) or self._nodes.get(node) or self._link_to(node, asked)
            in_use[node] = link
            slots[begin : end + 1] = [link] * (end + 1 - begin)
        gone = [link for node, link in self._nodes.items() if node not in in_use]
        self._nodes = in_use
        await asyncio.gather(*(link.open() for link in in_use.values()))
        self._slots = slots
        await asyncio.gather(*(link.close() for link in gone))

    def _link_to(self, node: tuple[str, int], asked: Place) -> Link:
        place = Place(*node, 0, asked.tls, asked.username, asked.password)
        return Link(self._login, lambda: _at_once(place))
