"""Redis fails under the gateway in five ways under load: always a response, and personal lists return.

The limits of the benchmark (`make bench-read`) are tighter; these tests assert only what must be true on any machine.
"""

from collections.abc import Iterator

import pytest

from bench.read_faults import FAULTS, SLOW_S, Phases, seen_while
from bench.read_testbed import ReadTestbed, open_read_testbed

BRIEF = Phases(before_s=0.5, down_s=2.0, after_s=2.5)


@pytest.fixture(scope="module")
def read_testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadTestbed]:
    with open_read_testbed(tmp_path_factory.mktemp("testbed")) as testbed:
        yield testbed


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.promise("gateway-always-answers")
def test_gateway_always_answers_while_redis_is(read_testbed: ReadTestbed, name: str) -> None:
    seen = seen_while(read_testbed, FAULTS[name], BRIEF)
    assert seen.answers > 100 and seen.failed == 0
    assert seen.p99_ms < 1_000 * SLOW_S / 2, "nobody waits for Redis"
    assert seen.recovered_s < BRIEF.after_s - 0.5, "own lists are back before the watching ends"
