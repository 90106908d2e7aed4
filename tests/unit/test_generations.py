"""The Redis generation for which a bucket's grants count."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.marks import Mark, decode_mark, encode_mark
from udfs.elements import BucketMark
from udfs.generations import MARKED_MAX, Caught, decode_caught, encode_caught

TOKENS = [f"{number:012x}" for number in range(6)]
marks = st.builds(BucketMark, st.sampled_from(TOKENS), st.integers(0, 3), st.just(4))


@given(st.lists(marks, max_size=60))
def test_nothing_is_proven_before_every_partition_mark(met: list[BucketMark]) -> None:
    caught = Caught()
    seen: dict[str, set[int]] = {}
    for mark in met:
        complete = caught.note(mark)
        seen.setdefault(mark.token, set()).add(mark.partition)
        caught = decode_caught(encode_caught(caught))
        if complete:
            assert caught.proven == mark.token
        assert caught.proven == "" or len(seen[caught.proven]) == 4
        assert len(caught.marked) <= MARKED_MAX


def test_added_partition_needs_its_mark() -> None:
    caught = Caught()
    assert not caught.note(BucketMark(TOKENS[0], 0, 2))
    assert not caught.note(BucketMark(TOKENS[0], 1, 3))
    assert caught.proven == ""
    assert caught.note(BucketMark(TOKENS[0], 2, 3))


def test_duplicate_marks_trigger_one_rebuild() -> None:
    caught = Caught()
    assert [caught.note(BucketMark(TOKENS[0], partition, 2)) for partition in (0, 0, 1, 0, 1)] == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_state_of_another_version_proves_nothing() -> None:
    assert decode_caught(b"\x02whatever").proven == ""
    assert decode_caught(None).proven == ""


@given(st.binary(max_size=80))
def test_invalid_mark_is_ignored(raw: bytes) -> None:
    found = decode_mark(raw)
    assert found is None or decode_mark(encode_mark(found)) == found


def test_mark_round_trips() -> None:
    mark = Mark(TOKENS[1], 12)
    assert decode_mark(encode_mark(mark)) == mark
