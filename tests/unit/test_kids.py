"""User counts by key id equal a full scan, and their stored bytes stay readable."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from udfs.kids import changed_kids, count_kids, decode_kids, encode_kids

GOLDEN = Path(__file__).parents[1] / "golden" / "state" / "kids-v1.bin"
pseudonyms = st.sets(st.builds("p{}.user-{}".format, st.integers(1, 3), st.integers(0, 9)))


@given(st.lists(pseudonyms, max_size=6))
def test_incremental_counts_equal_a_full_scan(populations: list[set[str]]) -> None:
    kids, before = Counter[str](), set[str]()
    for after in populations:
        kids = changed_kids(kids, after - before, before - after)
        assert kids == count_kids(after)
        assert 0 not in kids.values()
        before = after


def test_golden_bytes_are_read_and_written() -> None:
    kids = Counter({"1": 300, "2": 70_000})
    assert decode_kids(GOLDEN.read_bytes()) == kids
    assert encode_kids(kids) == GOLDEN.read_bytes()


def test_missing_or_outdated_counts_are_recomputed() -> None:
    assert decode_kids(None) is None
    assert decode_kids(b"\x02" + encode_kids(Counter({"1": 1}))[1:]) is None
