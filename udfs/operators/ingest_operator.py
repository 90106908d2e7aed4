"""The Flink operator around :class:`udfs.ingest.Ingest`: turns batches of raw records into packed elements."""

from collections.abc import Callable, Iterator

from pyflink.common import Row
from pyflink.datastream import ProcessFunction, RuntimeContext

from udfs.ingest import Ingest, unpack_records
from udfs.operators.interpreter import prepare, tell_log


class IngestOperator(ProcessFunction):
    """Takes the bytes of one batch; emits a row (bucket key, packed element) for each bucket that it touches.

    `open_ingest` is called once in each worker and reads the key ring there, so no key is ever in the job graph.
    """

    def __init__(self, open_ingest: Callable[[], Ingest]) -> None:
        self._open_ingest = open_ingest

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called by Flink in the worker before the first batch."""
        prepare()
        tell_log("ingest", runtime_context)
        self._ingest = self._open_ingest()

    def process_element(self, value: bytes, ctx: ProcessFunction.Context) -> Iterator[Row]:
        """Called by Flink with one batch. Bad records leave as rejects inside an element."""
        for bucket_key, element in self._ingest.pack(unpack_records(value)):
            yield Row(bucket_key, element)
