"""The job as submitted, serialised by Java to the file TEST_DUMP: job graph and stream graph.

Run as `-pym dumped_job`, from its own zip in addition to the product's. Nothing is submitted.
"""

import os
import sys
from pathlib import Path
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from jobs import personalise


def dump(env: StreamExecutionEnvironment, name: str | None = None) -> Any:
    """Replaces `execute`."""
    serialize = get_gateway().jvm.org.apache.flink.util.InstantiationUtil.serializeObject
    job_graph = env._generate_stream_graph(True, name or "").getJobGraph()
    Path(os.environ["TEST_DUMP"]).write_bytes(bytes(serialize(job_graph)))


StreamExecutionEnvironment.execute = dump  # type: ignore[method-assign,assignment]

if __name__ == "__main__":
    personalise.main([*sys.argv[1:], "--new-deployment"])
