"""Durations use a monotonic clock; the wall clock is used for timestamps only."""

import re
from pathlib import Path

from serving.gateway.admission import AdmissionSettings, Limits

ROOT = Path(__file__).parents[2]
WALL = re.compile(r"time\.time\b|time\.time_ns\b|datetime\.now|utcnow|fromtimestamp")
MOMENTS = {
    "adapters/files/model_cache.py": "how old a file is",
    "adapters/redis/client.py": "when a generation was made, for people",
    "serving/async_reader.py": "how old a list is, which says when it was made",
    "serving/gateway/tracing.py": "when a span began, which others compare with their own",
    "serving/consents.py": "when a person said something",
    "serving/displayed.py": "when users did something with a list",
    "serving/events.py": "events that are dated in the future",
    "serving/gateway/api_keys.py": "until when an API key is one",
    "serving/gateway/lane.py": "when a model was last served",
    "serving/gateway/collecting.py": "when a document was collected",
    "serving/gateway/routes.py": "when an erasure was asked for",
    "serving/gateway/security.py": "until when tokens and keys let in",
    "serving/kept_answers.py": "which other gateways' requests are over, by the broker's time of their records",
    "serving/reader.py": "how old a list is",
}
"""What may look at the wall clock, and for what."""


def test_wall_clock_is_used_for_timestamps_only() -> None:
    files = [path for package in ("serving", "adapters") for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if WALL.search(path.read_text())}
    assert found <= MOMENTS.keys(), "use time.monotonic for how long something takes, or say here which moment it is"


def test_clock_set_back_keeps_rate_limits() -> None:
    limits = Limits(AdmissionSettings(per_key_rate=10, per_key_burst=10))
    assert [limits.take("shop", 100.0) for _ in range(5)] == [9, 8, 7, 6, 5]
    assert limits.take("shop", 99.0) == 4
    assert limits.take("shop", 100.0) == 9
