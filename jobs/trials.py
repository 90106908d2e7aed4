"""What the judge has said of trials lately, from the topic `metrics` (`freshet model status`)."""

from typing import Final

import msgspec

from adapters.kafka.reading import TopicAsOfNow
from adapters.kafka.settings import KafkaSettings
from schemas import topics
from schemas.model_versions import shortened
from schemas.receipts import TrialReceipt

RECORDS_MAX: Final = 50_000
"""How many of the last records of `metrics` are read."""


def trials(kafka: KafkaSettings) -> list[TrialReceipt]:
    """The last word on each trial the latest first."""
    found: dict[tuple[str, str, str], TrialReceipt] = {}
    for record in TopicAsOfNow(kafka, topics.METRICS, last=RECORDS_MAX):
        if record.value is not None and b'"kind":"trial"' in record.value:
            try:
                receipt = msgspec.json.decode(record.value, type=TrialReceipt)
            except (msgspec.DecodeError, RecursionError):
                continue
            found[receipt.experiment, receipt.served, receipt.other] = receipt
    return sorted(found.values(), key=lambda one: -one.at)


def described_trials(found: list[TrialReceipt]) -> list[str]:
    """Trials as lines of text."""
    return [line for one in found for line in _lines(one)]


def _lines(one: TrialReceipt) -> list[str]:
    gain = max(one.served_gain, 1e-9)
    share = f"{one.difference / gain:+.1%}, between {one.low / gain:+.1%} and {one.high / gain:+.1%}"
    return [
        f"trial {one.experiment}: {shortened(one.other)} beside {shortened(one.served)}, {one.lists:,} lists",
        f"  gain {one.served_gain:.4f}; the other: {share}: {SAID[one.verdict]}",
    ]


SAID: Final = {
    "undecided": "not decided yet",
    "worse": "worse, rolled back",
    "better": "better: `freshet model canary` or `activate` would use it",
}
