"""The job as submitted by a client that cannot read the snapshot, keeping snapshots for `KEPT_MS` only.

Run as `-pym careless_job`, from its own zip in addition to the product's.
"""

import os
import sys

from jobs import personalise
from jobs.java_operators import snapshot_guard

KEPT_MS = int(os.environ.get("TEST_KEPT_MS", str(7 * 24 * 3_600_000)))

personalise.check_snapshot = lambda path, plan: None
personalise.snapshot_guard = lambda raw, pins, kept_ms, transaction_ms: snapshot_guard(
    raw, pins, KEPT_MS, transaction_ms
)

if __name__ == "__main__":
    personalise.main([*sys.argv[1:], "--new-deployment"])
