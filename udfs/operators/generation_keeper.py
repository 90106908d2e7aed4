"""Tracks the generation of Redis in Flink: detects lost data, and rebuilds a bucket's consents and lists.

Redis loses its data by a crash, a failover or FLUSHALL. Every bucket asks every second which generation is current. If
it is not the one that the bucket has caught up with, the bucket requests marks. Once it has read them all, it enters
all its users into pages, and works through the pages at a bounded rate. None of this needs an event.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from udfs.elements import BucketMark
from udfs.generations import Caught, decode_caught, encode_caught
from udfs.operators.timers import register_end_of

REBUILD_EVERY_MS: Final = 100
ENTERED_AT_ONCE: Final = 100_000
"""How many user names a rebuild buffers in memory (about 10 MB) while it enters them into pages."""
logger = logging.getLogger(__name__)


class GenerationParts(NamedTuple):
    """`ask_for_marks` requests marks of a generation in `consents`; it returns at once and may be called often.

    `users_per_second` bounds how fast a bucket's users are rewritten. `watch_every_ms` is how often a bucket asks Redis
    for its generation.
    """

    ask_for_marks: Callable[[str], None]
    users_per_second: int
    watch_every_ms: int = 1_000


class GenerationKeeper:
    """Tracks how far the bucket being processed has caught up. `current_generation` asks Redis for its generation."""

    def __init__(self, context: RuntimeContext, parts: GenerationParts, current_generation: Callable[[], str]) -> None:
        raw = Types.PICKLED_BYTE_ARRAY()
        self._caught = context.get_state(ValueStateDescriptor("generation-v1", raw))
        self._pages = context.get_map_state(MapStateDescriptor("rebuild-v1", Types.STRING(), raw))
        self._parts = parts
        self._in_force = current_generation
        self._page_users = max(1, parts.users_per_second * REBUILD_EVERY_MS // 1_000)
        self._known: dict[Any, Caught] = {}
        """Decoded state by bucket key."""

    def proven(self, ctx: KeyedProcessFunction.Context) -> str:
        """The generation in which this bucket's grants count; also starts watching the bucket."""
        key = ctx.get_current_key()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = decode_caught(self._caught.value())
            register_end_of(self._parts.watch_every_ms, ctx)
        return known.proven

    def take(
        self,
        marks: Iterable[BucketMark],
        users: Callable[[], Iterable[str]],
        kids: Callable[[], Counter[str]],
        ctx: Any,
    ) -> bool:
        """Process `marks`; if they complete a generation, schedule all `users` to be rewritten, and return True.

        `kids` returns their number by key id.
        """
        self.proven(ctx)
        caught = self._known[ctx.get_current_key()]
        complete = [caught.note(mark) for mark in marks]
        self._caught.update(encode_caught(caught))
        if any(complete):
            self._enter(users(), kids().total())
            register_end_of(REBUILD_EVERY_MS, ctx)
        return any(complete)

    def due(self, timestamp: int, has_users: Callable[[], bool], ctx: Any, writes: bool = True) -> list[str]:
        """At a timer: the users whose consents and lists must be written now.

        A job that does not write (:mod:`udfs.handover`) keeps its pages until it does.
        """
        if timestamp % self._parts.watch_every_ms == 0:
            self._watch(has_users(), ctx, writes)
        if timestamp % REBUILD_EVERY_MS or not writes:
            return []
        name = self._some_page()
        if name is None:
            return []
        page = self._pages.get(name)
        self._pages.remove(name)
        if self._pages.is_empty():
            logger.warning("consents and lists of bucket key %s have been rewritten", ctx.get_current_key())
        else:
            register_end_of(REBUILD_EVERY_MS, ctx)
        return bytes(page).decode().split("\n")

    def register_timers(self, ctx: Any) -> None:
        """At a deferred timer: register the next timers."""
        register_end_of(self._parts.watch_every_ms, ctx)
        if not self._pages.is_empty():
            register_end_of(REBUILD_EVERY_MS, ctx)

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """Remove erased users from the pages. Touches one page per user."""
        name = self._some_page() if pseudonyms else None
        if name is None:
            return
        if name.isdigit():  # pages of an early release, in order of arrival: any page may name them
            names = set(self._pages.keys())
        else:
            names = {_page_of(pseudonym, _pages_of(name)) for pseudonym in pseudonyms}
        gone = set(pseudonyms)
        for name in names:
            named = bytes(self._pages.get(name) or b"").decode().split("\n")
            if not gone.isdisjoint(named):
                self._pages.put(name, "\n".join(one for one in named if one not in gone).encode())

    def add(self, pseudonyms: Sequence[str]) -> None:
        """Add renamed users to a rebuild in progress, so that they are rewritten under their new names."""
        name = self._some_page() if pseudonyms else None
        if name is None:
            return
        for pseudonym in pseudonyms:
            self._write({name if name.isdigit() else _page_of(pseudonym, _pages_of(name)): [pseudonym]})

    def _some_page(self) -> str | None:
        return next(iter(self._pages.keys()), None)

    def _watch(self, has_users: bool, ctx: Any, writes: bool) -> None:
        """Compare generations.

        Stop watching a bucket without users until its next element: it has nothing to rewrite.
        """
        if not has_users:
            self._known.pop(ctx.get_current_key(), None)
            return
        proven = self.proven(ctx)
        register_end_of(self._parts.watch_every_ms, ctx)
        if not writes:
            return
        if not self._pages.is_empty():
            register_end_of(REBUILD_EVERY_MS, ctx)
        current_generation = self._in_force()
        if current_generation != proven:
            self._parts.ask_for_marks(current_generation)

    def _enter(self, users: Iterable[str], count: int) -> None:
        """Enter the bucket's users into pages, replacing what an earlier rebuild has left.

        A hash of the pseudonym selects the page, so that an erasure touches one page. Names are buffered in memory up
        to :data:`ENTERED_AT_ONCE`, so that a page is not rewritten for each.
        """
        self._pages.clear()
        pages = -(-count // self._page_users) or 1
        held: dict[str, list[str]] = {}
        for number, pseudonym in enumerate(users, start=1):
            held.setdefault(_page_of(pseudonym, pages), []).append(pseudonym)
            if number % ENTERED_AT_ONCE == 0:
                self._write(held)
                held = {}
        self._write(held)

    def _write(self, entered: Mapping[str, list[str]]) -> None:
        for name, pseudonyms in entered.items():
            page, known = "\n".join(pseudonyms).encode(), self._pages.get(name)
            self._pages.put(name, page if known is None else bytes(known) + b"\n" + page)


def _page_of(pseudonym: str, pages: int) -> str:
    """The name of the page of `pseudonym`, one of `pages`; the name includes how many there are."""
    return f"{crc32(pseudonym.encode()) % pages}/{pages}"


def _pages_of(name: str) -> int:
    return int(name.partition("/")[2])
