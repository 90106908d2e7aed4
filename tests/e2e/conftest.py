"""One real stack for all tests of the journey that do not break it."""

from collections.abc import Iterator

import pytest

from tests.support.live import Live, start_live

SETTINGS = {
    "metrics.reporters": "prometheus",
    # What is written exactly once is seen after a checkpoint, and much here waits for that.
    "execution.checkpointing.interval": "500 ms",
    "execution.checkpointing.min-pause": "100 ms",
}


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = start_live(tmp_path_factory.mktemp("stack"), flink_settings=SETTINGS)
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()
