"""One real stack, shared by all journey tests that do not break it.

It runs from the first of them until a file that does not share it: a stack that idles takes half a core.
"""

from collections.abc import Generator, Iterator

import pytest

from adapters.secrets.key_rings import load_key_ring
from serving.consents import Consents
from serving.reader import Reader
from tests.conftest import shares_stack
from tests.support.live import Live, consents_of, start_live

SETTINGS = {
    "metrics.reporters": "prometheus",
    # Exactly-once output is visible after a checkpoint, and many tests wait for that.
    "execution.checkpointing.interval": "500 ms",
    "execution.checkpointing.min-pause": "100 ms",
}


RUNNING = pytest.StashKey[Live]()
FAILED = pytest.StashKey[BaseException]()


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Live:
    stash = request.config.stash
    if FAILED in stash:
        raise RuntimeError("the stack did not start for an earlier test") from stash[FAILED]
    if RUNNING not in stash:
        try:
            stash[RUNNING] = start_live(tmp_path_factory.mktemp("stack"), flink_settings=SETTINGS)
        except BaseException as error:
            stash[FAILED] = error
            raise
        request.config.add_cleanup(lambda: stop(stash))  # also if the run is ended early
    return stash[RUNNING]


def stop(stash: pytest.Stash) -> None:
    """Stop the stack if it runs."""
    if RUNNING in stash:
        running = stash[RUNNING]
        del stash[RUNNING]
        running.close()
        running.stack.stop()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Stop the stack behind the last file that shares it, after the fixtures that use it have ended."""
    try:
        yield
    finally:
        if not (nextitem and shares_stack(nextitem.path)):
            stop(item.config.stash)


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
