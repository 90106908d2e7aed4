"""Shell around :class:`udfs.ingest.Ingest`: a vectorised UDF on the records of the Kafka source."""

from collections.abc import Callable

import pandas as pd
from pyflink.table.udf import FunctionContext, ScalarFunction

from udfs.ingest import Ingest, RawRecord


class IngestUdf(ScalarFunction):
    """Takes the columns topic, partition, offset, append time, key and value of a batch of records.

    Returns as many rows (bucket, packed): one for each bucket of the batch, `packed` null in the others.
    `open_ingest` is called once in each worker: it reads the key ring there, so no key is ever in the job graph.
    """

    def __init__(self, open_ingest: Callable[[], Ingest]) -> None:
        self._open_ingest = open_ingest

    def open(self, function_context: FunctionContext) -> None:
        """Called by Flink in the worker before the first batch."""
        self._ingest = self._open_ingest()

    def eval(
        self,
        topic: pd.Series,
        partition: pd.Series,
        offset: pd.Series,
        append_time: pd.Series,
        key: pd.Series,
        value: pd.Series,
    ) -> pd.DataFrame:
        """Called by Flink with one Arrow batch; the six series have the same length."""
        # PyFlink takes the UTC time that it is given for local time: without its zone it is right again.
        append_ms = append_time.dt.tz_localize(None).to_numpy("datetime64[ms]").astype("int64")
        columns = (topic, partition, offset, append_ms, key, value)
        packed = self._ingest.pack(map(RawRecord._make, zip(*(column.tolist() for column in columns), strict=True)))
        empty = len(topic) - len(packed)
        return pd.DataFrame(
            {
                "bucket": [bucket for bucket, _ in packed] + [-1] * empty,
                "packed": [element for _, element in packed] + [None] * empty,
            }
        )
