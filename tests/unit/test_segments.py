"""Whatever producers send as a segment, a bucket's tables, timers and Redis keys stay bounded."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import HOUR_MS
from tests.support.vocabulary import BEGINNING, HOUR, an_interaction
from udfs.popularity import PopularitySettings, weighing
from udfs.segments import KnownSegments, admit, decode_known, encode_known

SETTINGS = PopularitySettings(segments_max=3, list_ttl_ms=5 * HOUR)
GOLDEN = Path(__file__).parents[1] / "golden" / "state" / "segments-v1.bin"
BEGINNING_HOUR = BEGINNING // HOUR_MS

names = st.sampled_from([f"surface:{letter}" for letter in "abcdef"])
visits = st.lists(
    st.tuples(st.sampled_from([0, 1, HOUR - 1, HOUR, 4 * HOUR + HOUR // 2]), st.lists(names, max_size=4)), max_size=40
)


def known(**hours_ago: int) -> KnownSegments:
    return KnownSegments(0, {f"surface:{name}": BEGINNING_HOUR - ago for name, ago in hours_ago.items()})


@given(visits)
@pytest.mark.promise("bounded-segments")
def test_segment_tables_are_bounded(steps: list[tuple[int, list[str]]]) -> None:
    """A table is deleted at the end of the hour in which a list's lifetime has passed since its last event."""
    now, now_known, tables = BEGINNING, KnownSegments(), dict[str, int]()
    for later_by, segments in steps:
        now += later_by
        tables = {name: gone_at for name, gone_at in tables.items() if gone_at > now}
        before = encode_known(now_known)
        admitted = admit(now_known, weighing([an_interaction(segments=tuple(segments))]), now, SETTINGS)
        assert encode_known(now_known) == before, "an element that fails leaves nothing behind"
        now_known = decode_known(encode_known(admitted.known or now_known))
        [event] = admitted.events
        assert admitted.left_out == len(segments) - len(event.segments)
        for segment in event.segments:
            tables[segment] = -(-(now + SETTINGS.list_ttl_ms) // HOUR_MS) * HOUR_MS
        assert len(tables) <= SETTINGS.segments_max
        assert len(now_known.seen) <= SETTINGS.segments_max


@given(visits)
def test_segments_within_the_limit_are_all_kept(steps: list[tuple[int, list[str]]]) -> None:
    roomy, now, now_known = msgspec.structs.replace(SETTINGS, segments_max=6), BEGINNING, KnownSegments()
    for later_by, segments in steps:
        now += later_by
        events = weighing([an_interaction(segments=tuple(segments))])
        admitted = admit(now_known, events, now, roomy)
        now_known = admitted.known or now_known
        assert (admitted.events, admitted.left_out) == (events, 0)


def test_idle_segment_is_evicted_before_active_ones() -> None:
    full = known(home=0, cart=0, old=7)
    events = weighing([an_interaction(segments=("surface:new", "surface:home"))])
    admitted = admit(full, events, BEGINNING, SETTINGS)
    assert admitted.left_out == 1
    later = admit(admitted.known or full, events, BEGINNING + HOUR, SETTINGS)
    assert later.left_out == 0
    assert later.known is not None and "surface:old" not in later.known.seen


def test_segment_state_is_written_hourly_and_not_for_dropped_ones() -> None:
    events = weighing([an_interaction(segments=("surface:home",))])
    first = admit(KnownSegments(), events, BEGINNING, SETTINGS)
    assert first.known is not None
    assert admit(first.known, events, BEGINNING + 1, SETTINGS).known is None
    full = admit(first.known, weighing([an_interaction(segments=("a:1", "a:2"))]), BEGINNING + 1, SETTINGS).known
    assert full is not None
    assert admit(full, weighing([an_interaction(segments=("a:3",))]), BEGINNING + 2, SETTINGS).known is None


def test_golden_bytes_are_read_and_written() -> None:
    stored = KnownSegments(BEGINNING_HOUR, known(home=0, cart=3).seen)
    assert decode_known(GOLDEN.read_bytes()) == stored
    assert encode_known(stored) == GOLDEN.read_bytes()
    assert decode_known(b"\x02" + GOLDEN.read_bytes()[1:]) == KnownSegments()
