"""Records which classes each part loads, so that it starts with about two thirds of the work. Run by `make warm`.

Nothing depends on it: without the archives, everything works but starts more slowly.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from deploy.local.errors import StackError
from deploy.local.java import keep_recorded
from deploy.local.paths import CACHE
from deploy.local.stack import LocalStack

_JOB = Path(__file__).with_name("recorded_job.py")


def record(directory: Path) -> int:
    """Run a stack and a job below `directory` while Java records; returns the number of archives."""
    stack = LocalStack(directory, records_classes=True, end_grace_s=60)
    with stack:
        servers = stack.kafka.bootstrap_servers
        admin = KafkaAdminClient(bootstrap_servers=servers)
        admin.create_topics([NewTopic("in", 1, 1), NewTopic("out", 1, 1)])
        admin.close()
        job = stack.flink_run(["-py", str(_JOB), servers, "in", "out"])
        stack.rest.wait_running(job)
        producer = KafkaProducer(bootstrap_servers=servers)
        for number in range(100):
            producer.send("in", str(number % 7).encode())
        producer.close()
        stack.rest.checkpoint(job)
        stack.rest.cancel(job)
    return keep_recorded()


def main() -> int:
    """Record; a failure is reported but is not an error."""
    begun = time.monotonic()
    print("classes: recording what the parts load, so that they start sooner (about a minute, once) ...", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="record-") as directory:
        try:
            count = record(Path(directory))
        except StackError as error:
            print(f"classes: not recorded, the stack will start more slowly: {error}", file=sys.stderr)
            return 0
    print(f"classes: {count} archives after {time.monotonic() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
