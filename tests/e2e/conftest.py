"""One real stack for all tests of the journey that do not break it."""

from collections.abc import Iterator

import pytest

from tests.support.live import Live, start_live


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = start_live(tmp_path_factory.mktemp("stack"), flink_settings={"metrics.reporters": "prometheus"})
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()
