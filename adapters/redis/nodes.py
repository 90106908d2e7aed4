"""Chooses the server to connect to: the given address, the primary named by Sentinels, or the node of a slot."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import hiredis
import msgspec

from adapters.redis.address import RedisEndpoint, parse
from adapters.redis.connection import Connection, Login
from adapters.redis.replies import exception_for
from adapters.redis.slots import SLOTS, slot_of
from schemas.errors import StoreUnavailable

UNPLACED: Final = RedisEndpoint("", 0, 0, False, None, None)


class Nodes(Protocol):
    """Locates keys. A node is a :class:`RedisEndpoint`; :meth:`locate` decides which server it leads to."""

    def of(self, keys: Sequence[str | bytes]) -> list[RedisEndpoint]:
        """The node of each key. Raises :class:`StoreUnavailable`."""
        ...

    def all(self) -> list[RedisEndpoint]:
        """All nodes that have keys. Raises :class:`StoreUnavailable`."""
        ...

    def locate(self, node: RedisEndpoint) -> RedisEndpoint:
        """Where to connect for `node` now. Raises :class:`StoreUnavailable`."""
        ...

    def forget(self) -> None:
        """Discard cached locations, which may be outdated."""
        ...


def nodes_of(login: Login) -> Nodes:
    """The nodes of an address."""
    places = [parse(url) for url in login.address.urls]
    if login.address.kind == "cluster":
        return ClusterNodes(login, places)
    return OneNode(login, places)


class OneNode:
    """One server, or the primary of Sentinels: it has all keys."""

    def __init__(self, login: Login, places: list[RedisEndpoint]) -> None:
        self._login, self._places = login, places

    def of(self, keys: Sequence[str | bytes]) -> list[RedisEndpoint]:
        """See :class:`Nodes`."""
        return [UNPLACED] * len(keys)

    def all(self) -> list[RedisEndpoint]:
        """See :class:`Nodes`."""
        return [UNPLACED]

    def locate(self, node: RedisEndpoint) -> RedisEndpoint:
        """See :class:`Nodes`."""
        return primary_of(self._login, self._places) if self._login.address.kind == "sentinel" else self._places[0]

    def forget(self) -> None:
        """See :class:`Nodes`. Nothing is cached."""


class ClusterNodes:
    """The primaries of a Cluster, by slot."""

    def __init__(self, login: Login, seeds: list[RedisEndpoint]) -> None:
        self._login, self._seeds = login, seeds
        self._slots: list[RedisEndpoint] | None = None
        self._known: list[RedisEndpoint] = []

    def of(self, keys: Sequence[str | bytes]) -> list[RedisEndpoint]:
        """See :class:`Nodes`."""
        slots = self._slots or self._ask()
        found = [slots[slot_of(key)] for key in keys]
        if UNPLACED in found:
            self.forget()
            raise StoreUnavailable("no node of the Cluster serves this slot")
        return found

    def all(self) -> list[RedisEndpoint]:
        """See :class:`Nodes`."""
        slots = self._slots or self._ask()
        if UNPLACED in slots:
            self.forget()
            raise StoreUnavailable("some slots of the Cluster are served by no node")
        return list(dict.fromkeys(slots))

    def locate(self, node: RedisEndpoint) -> RedisEndpoint:
        """See :class:`Nodes`."""
        return node

    def forget(self) -> None:
        """See :class:`Nodes`."""
        self._slots = None

    def _ask(self) -> list[RedisEndpoint]:
        """Ask the known nodes, then the seeds, for the slots."""
        first: Exception = StoreUnavailable("no node of the Cluster answers")
        for place in dict.fromkeys([*self._known, *self._seeds]):
            try:
                ranges = ask_once(self._login, place, ("CLUSTER", "SLOTS"))
            except StoreUnavailable as error:
                first = error
                continue
            if ranges:
                slots = slots_in(ranges, place)
                self._known = list(dict.fromkeys(one for one in slots if one is not UNPLACED))
                self._slots = slots
                return slots
        raise first


def slots_in(ranges: Iterable[Any], asked: RedisEndpoint) -> list[RedisEndpoint]:
    """The reply to CLUSTER SLOTS as the primary of each slot, :data:`UNPLACED` if it has none.

    An empty host is that of the node that replied.
    """
    slots = [UNPLACED] * SLOTS
    for begin, end, primary, *_ in ranges:
        host = (primary[0] or b"").decode() or asked.host
        place = msgspec.structs.replace(asked, host=host, port=int(primary[1]), database=0)
        slots[begin : end + 1] = itertools.repeat(place, end + 1 - begin)
    return slots


def ask_once(login: Login, place: RedisEndpoint, command: tuple[Any, ...]) -> Any:
    """The reply to one command, on a new connection without a handshake."""
    connection = Connection(login, place)
    try:
        *_, answer = answers = connection.ask([*login.commands(place), command])
    finally:
        connection.close()
    for one in answers:
        if isinstance(one, hiredis.ReplyError):
            raise exception_for(one, login.prefix)
    return answer


def sentinel_login(login: Login) -> Login:
    """The login for Sentinels, which have their own users: those in their URLs."""
    return login._replace(address=msgspec.structs.replace(login.address, username=None), password=None)


def primary_of(login: Login, sentinels: Sequence[RedisEndpoint]) -> RedisEndpoint:
    """Locate the primary, by the first Sentinel that knows it."""
    asking = sentinel_login(login)
    command = "SENTINEL", "get-master-addr-by-name", login.address.service
    for sentinel in sentinels:
        try:
            found = ask_once(asking, msgspec.structs.replace(sentinel, database=0), command)
        except StoreUnavailable:
            continue
        if found is not None:
            host, port = found
            return RedisEndpoint(host.decode(), int(port), sentinel.database, sentinel.tls, None, None)
    asked = ", ".join(map(repr, sentinels))
    raise StoreUnavailable(f"no Sentinel at {asked} knows the primary {login.address.service}")
