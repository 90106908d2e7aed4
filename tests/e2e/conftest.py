"""One real stack, shared by all journey tests that do not break it."""

from collections.abc import Iterator

import pytest

from adapters.secrets.key_rings import load_key_ring
from serving.consents import Consents
from serving.reader import Reader
from tests.support.live import Live, consents_of, start_live

SETTINGS = {
    "metrics.reporters": "prometheus",
    # Exactly-once output is visible after a checkpoint, and many tests wait for that.
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


@pytest.fixture
def consents(live: Live) -> Iterator[Consents]:
    made = consents_of(live)
    yield made
    made.close()


@pytest.fixture
def reader(live: Live) -> Iterator[Reader]:
    made = Reader(live.product.endpoints["redis"], load_key_ring(live.product.endpoints["key_ring"]))
    yield made
    made.close()
