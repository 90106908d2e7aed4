"""The Java operators, compiled from source, on Flink's own mini cluster; no Python runs in it."""

from collections.abc import Iterable

from pyflink.common import Configuration
from pyflink.datastream import DataStream, StreamExecutionEnvironment

from jobs.java_operators import record_batches, split_lines
from jobs.settings import BatchSettings
from tests.jobs.test_personalise_job import as_stream
from tests.support.vocabulary import BEGINNING, SECOND, a_raw_interaction, a_tombstone
from udfs.ingest import RawRecord, unpack_records

LONG = 600_000
RECORDS = [
    *(a_raw_interaction("ada", offset=n, appended=BEGINNING + n * SECOND, partition=n % 4) for n in range(7)),
    a_raw_interaction("zoë", item="Tee 🫖", offset=2**40, appended=2**41),
    a_tombstone("gil", BEGINNING, offset=8),
    RawRecord("t.interactions", 3, 9, BEGINNING, None, b""),
    RawRecord("t.interactions", 3, 10, BEGINNING, b"", bytes(range(256)) * 300),
]


def environment() -> StreamExecutionEnvironment:
    configuration = Configuration()
    configuration.set_string("restart-strategy.type", "none")
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    env.set_parallelism(1)
    return env


def collected(stream: DataStream) -> list[bytes]:
    with stream.execute_and_collect("test") as results:
        return [bytes(number & 255 for number in raw) for raw in results]


def raw_stream(records: list[RawRecord]) -> DataStream:
    return as_stream(environment(), records)


def batches(bounds: BatchSettings) -> list[list[RawRecord]]:
    return [unpack_records(batch) for batch in collected(record_batches(raw_stream(RECORDS), bounds, "thread"))]


def joined(lists: Iterable[list[RawRecord]]) -> list[RawRecord]:
    return [record for its in lists for record in its]


def test_batch_ends_when_full_or_at_end_of_input() -> None:
    found = batches(BatchSettings(records_max=4, wait_ms=LONG))
    assert [len(batch) for batch in found] == [4, 4, 3]
    assert joined(found) == RECORDS, "each record as it was, in order"


def test_batch_ends_at_byte_limit() -> None:
    found = batches(BatchSettings(bytes_max=1, wait_ms=LONG))
    assert [len(batch) for batch in found] == [1] * len(RECORDS)
    assert joined(found) == RECORDS


def test_splitter_emits_one_record_per_line() -> None:
    texts = [b"one", b"two\nthree", "vier 🫖\n\nf".encode(), b"end\n", b"\n", b""]
    records = [RawRecord("t.interactions", 0, n, BEGINNING, None, text) for n, text in enumerate(texts)]
    bounds = BatchSettings(records_max=1)
    packed = collected(record_batches(raw_stream(records), bounds, "thread"))
    found = collected(split_lines(record_batches(raw_stream(records), bounds, "thread"), "lines"))
    assert found == [line for raw in packed for line in raw.removesuffix(b"\n").split(b"\n")]
    assert len(found) > len(texts)
