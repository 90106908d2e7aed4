"""The popular operator on fakes: merges once a second, and publishes versions that never decrease."""

from collections.abc import Iterator

import pytest
from pyflink.common import Types
from pyflink.datastream.state import ListStateDescriptor

import udfs.operators.patience
from schemas.catalogue import CatalogueItem
from schemas.shop_rules import Pin, ShopRules
from tests.support.fakes import Harness, Keyed, MemoryStore
from tests.support.vocabulary import BEGINNING, SECOND, an_interaction
from udfs.assortment import Assortment, Unfollowed
from udfs.elements import EventRecord
from udfs.operators.popular_operator import PopularOperator, PopularParts
from udfs.popularity import NO_SUMS, PopularitySettings, SegmentSums, encode_sums, sum_by_segment, weighing

SETTINGS = PopularitySettings(users_min=2, list_items=3)


class Segment:
    """The segment `all` and its store."""

    def __init__(self, assortment: Assortment | None = None) -> None:
        self.assortment = assortment or Assortment()
        self.keyed = Keyed("all", BEGINNING)
        self.store = MemoryStore(BEGINNING, lambda: self.keyed.now_ms)
        self._start()

    def _start(self) -> None:
        parts = PopularParts(self.store, "popularity", BEGINNING, SETTINGS, catalogue=Unfollowed(self.assortment))
        self.harness = Harness(PopularOperator(lambda: parts), self.keyed)

    def restart(self, snapshot: Keyed) -> None:
        now_ms, self.keyed = self.keyed.now_ms, snapshot.snapshot()
        self.keyed.now_ms = now_ms
        self._start()

    def take(self, *events: EventRecord) -> None:
        for sums in sum_by_segment(weighing(events), SETTINGS.half_life_ms):
            assert self.harness.element((sums.segment, encode_sums(sums))) == []

    def pass_seconds(self, seconds: int = 1) -> None:
        assert self.harness.advance_to(self.keyed.now_ms + seconds * SECOND) == []

    def ids(self) -> list[str] | None:
        found = self.store.popular("all")
        return None if found is None else [item.id for item in found.items]


def met(item: str, *users: int) -> list[EventRecord]:
    return [an_interaction(f"u{n}", item=item, user_bit=n) for n in users]


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes retries immediate."""
    monkeypatch.setattr(udfs.operators.patience, "nap", lambda _: None)
    yield


def test_rules_of_the_shop_choose_among_everything_that_is_popular() -> None:
    assortment = Assortment(ShopRules(category_items_max=1, pins=(Pin(item="lamp", position=2),)))
    for item, category in {"tea": "drinks", "milk": "drinks", "cup": None, "pot": None}.items():
        assortment.note(item, CatalogueItem(item, item, category, available=item != "cup"))
    segment = Segment(assortment)
    for users, item in ((6, "tea"), (5, "milk"), (4, "cup"), (3, "pot")):
        segment.take(*met(item, *range(users)))
    segment.pass_seconds()
    assert segment.ids() == ["tea", "lamp", "pot"], "one of drinks, the pin, and what comes after the withdrawn item"
    assortment.note("cup", CatalogueItem("cup", "cup"))
    segment.take(*met("tea", 7))
    segment.pass_seconds()
    assert segment.ids() == ["tea", "lamp", "cup"]


@pytest.fixture
def segment() -> Segment:
    return Segment()


def test_items_met_by_k_users_are_published_within_a_second(segment: Segment) -> None:
    segment.take(*met("tea", 1))
    segment.take(*met("tea", 2), *met("cup", 1))
    assert segment.ids() is None
    segment.pass_seconds()
    assert segment.ids() == ["tea"]
    found = segment.store.popular("all")
    assert found is not None and (found.reason, found.model) == ("popular", "popularity")


def test_pending_sums_are_merged_and_leave_no_timer(segment: Segment) -> None:
    segment.take(*met("tea", 1, 2))
    assert segment.keyed.states["pending-v1"].held
    segment.pass_seconds()
    assert segment.keyed.states["pending-v1"].held == []
    assert all(timer >= segment.keyed.now_ms + SETTINGS.list_ttl_ms for timer in segment.keyed.timers)


def test_idle_segment_leaves_no_state_or_timer(segment: Segment) -> None:
    life_s = SETTINGS.list_ttl_ms // SECOND
    segment.take(*met("tea", 1, 2))
    segment.pass_seconds(life_s // 2)
    segment.take(*met("tea", 3))
    segment.pass_seconds(life_s - 3_600)
    assert segment.keyed.states["popularity-v1"].held is not None
    segment.pass_seconds(2 * 3_600)
    assert segment.keyed.states["popularity-v1"].held is None
    assert segment.keyed.timers == set()


def test_sums_are_merged_once_per_second(segment: Segment) -> None:
    for n in range(20):
        segment.take(*met("tea", n))
    assert len(segment.keyed.timers) == 1


def test_nothing_is_published_below_k_users(segment: Segment) -> None:
    segment.take(*met("tea", 1))
    segment.pass_seconds()
    assert segment.ids() is None


def test_store_outage_is_retried(segment: Segment) -> None:
    segment.take(*met("tea", 1, 2))
    segment.store.fail_next(4)
    segment.pass_seconds()
    assert segment.ids() == ["tea"]
    assert segment.keyed.counts["redis_retries_total"] == 4


def test_first_list_after_restore_is_accepted(segment: Segment) -> None:
    segment.take(*met("tea", 1, 2))
    snapshot = segment.keyed.snapshot()
    for n in range(30):
        segment.take(*met("cup", n, n + 1))
        segment.pass_seconds()
    segment.restart(snapshot)
    segment.take(*met("pot", *range(60)))
    segment.pass_seconds()
    assert segment.ids() is not None and segment.ids()[0] == "pot"  # type: ignore[index]


def test_restore_counts_nothing_twice(segment: Segment) -> None:
    segment.take(*met("tea", 1, 2))
    snapshot = segment.keyed.snapshot()
    segment.pass_seconds()
    once = segment.store.popular("all")
    segment.restart(snapshot)
    segment.pass_seconds()
    again = segment.store.popular("all")
    assert once is not None and again is not None and once.items == again.items


def test_table_is_written_when_sums_have_grown_as_large_and_restores_count_everything_once() -> None:
    restarted, undisturbed = Segment(), Segment()
    written = 0
    for second in range(60):
        events = [event for n in range(5) for event in met(f"item-{second * n % 17}", second % 9, n)]
        for segment in (restarted, undisturbed):
            segment.take(*events)
            segment.pass_seconds()
        states = undisturbed.keyed.states
        unwritten, table = sum(map(len, states["pending-v1"].held)), len(states["popularity-v1"].held or b"")
        assert unwritten < table
        written += not unwritten
        if second % 7 == 3:
            restarted.restart(restarted.keyed)
        found, wanted = (segment.store.popular("all") for segment in (restarted, undisturbed))
        assert found is not None and wanted is not None
        assert [item.id for item in found.items] == [item.id for item in wanted.items]
        assert [item.score for item in found.items] == pytest.approx([item.score for item in wanted.items])
    assert 2 < written < 40


def test_pending_sums_are_read_once_when_a_segment_is_opened(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    segment.take(*met("tea", 1, 2))
    pending, read = segment.keyed.states["pending-v1"], []
    get = pending.get
    monkeypatch.setattr(pending, "get", lambda: read.append(1) or get())
    segment.pass_seconds()
    segment.take(*met("tea", 3))
    segment.pass_seconds()
    assert segment.ids() == ["tea"]
    assert len(read) == 1


def test_lost_popular_lists_are_republished_on_request(segment: Segment) -> None:
    segment.take(*met("tea", 1, 2))
    segment.pass_seconds()
    empty = MemoryStore(BEGINNING, lambda: 0).held()
    segment.store.go_back_to(empty)
    segment.pass_seconds(5)
    assert segment.ids() is None
    assert segment.harness.element(("all", encode_sums(NO_SUMS))) == []
    segment.pass_seconds()
    assert segment.ids() == ["tea"]


def test_unmergeable_sums_do_not_affect_others(segment: Segment) -> None:
    segment.take(*met("tea", 1, 2, 3))
    segment.keyed.get_list_state(ListStateDescriptor("pending-v1", Types.PICKLED_BYTE_ARRAY())).add(b"no sums")
    segment.harness.element(("all", encode_sums(SegmentSums("all", BEGINNING, {"jam": (1.0, -1)}))))
    segment.take(*met("cup", 1, 2))
    segment.pass_seconds()
    assert segment.ids() == ["tea", "cup"]
    assert segment.keyed.counts["records_given_up_total"] == 2
    segment.take(*met("pot", 1, 2, 3, 4))
    segment.pass_seconds()
    assert segment.ids() == ["pot", "tea", "cup"]
