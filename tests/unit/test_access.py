"""The partitions that a search for a person's data reads."""

from hypothesis import given
from hypothesis import strategies as st

from adapters.kafka.partitions import likely_partitions
from serving.held_data import partitions_of_user

keys = st.binary(min_size=1, max_size=20)
counts = st.integers(1, 64)


@given(keys, counts, st.integers(-1, 63))
def test_last_consent_partition_is_always_read(raw: bytes, count: int, consented_in: int) -> None:
    chosen = set(partitions_of_user(raw, {"consent_partition": consented_in})(count))
    assert consented_in in chosen or not 0 <= consented_in < count
    assert likely_partitions(raw, count) <= chosen <= set(range(count))


@given(keys, counts)
def test_all_partitions_are_read_when_no_hash_explains_the_last_consent(raw: bytes, count: int) -> None:
    likely = likely_partitions(raw, count)
    for consented_in in range(count):
        chosen = set(partitions_of_user(raw, {"consent_partition": consented_in})(count))
        assert chosen == (likely if consented_in in likely else set(range(count)))


@given(keys, counts)
def test_likely_partitions_are_few_for_users_without_state(raw: bytes, count: int) -> None:
    chosen = set(partitions_of_user(raw, None)(count))
    assert chosen == likely_partitions(raw, count) == set(partitions_of_user(raw, {"consent_partition": -1})(count))
    assert 1 <= len(chosen) <= 4
