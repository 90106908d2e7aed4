"""The operator around ingest: Java's batches arrive unchanged and leave by bucket."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.vocabulary import BEGINNING, a_raw_consent, a_raw_interaction, a_tombstone, an_ingest
from udfs.elements import Element, unpack
from udfs.ingest import RawRecord, unpack_records
from udfs.operators.ingest_operator import IngestOperator


def elements(*records: RawRecord, buckets: int = 4) -> dict[int, Element]:
    """The operator's output for a batch of `records`, by bucket key."""
    shell = IngestOperator(lambda: an_ingest(buckets))
    shell.open(None)  # type: ignore[arg-type]
    rows = list(shell.process_element(msgspec.msgpack.encode(records), None))  # type: ignore[arg-type]
    assert len({row[0] for row in rows}) == len(rows), "one element a bucket"
    return {row[0]: unpack(row[1]) for row in rows}


def test_batch_becomes_one_element_per_bucket() -> None:
    found = elements(*(a_raw_interaction(f"user-{n}", id=f"e{n}", offset=n) for n in range(60)))
    assert set(found) == {100, 101, 102, 103}
    assert sorted(event.offset for element in found.values() for event in element.events) == list(range(60))


def test_missing_key_or_value_arrives_as_none() -> None:
    [element] = elements(a_tombstone("ada"), a_raw_interaction("ada")._replace(key=None)).values()
    assert (len(element.consents), len(element.events), element.rejects) == (1, 1, [])


def test_append_time_is_the_broker_time() -> None:
    [element] = elements(a_raw_interaction("ada"), a_raw_consent("ada")).values()
    assert [record.append_ts for record in (*element.events, *element.consents)] == [BEGINNING, BEGINNING]


numbers = st.integers(0, 2**63 - 1)
records = st.builds(
    RawRecord, st.text(max_size=249), st.integers(0, 2**31 - 1), numbers, numbers, *[st.none() | st.binary()] * 2
)


@settings(max_examples=examples(50))
@given(st.lists(records, max_size=5))
def test_records_round_trip_through_packing(batch: list[RawRecord]) -> None:
    assert unpack_records(msgspec.msgpack.encode(batch)) == batch
