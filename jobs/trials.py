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
    return [
        f"trial {one.experiment}: {shortened(one.other)} beside {shortened(one.served)}, {one.lists:,} lists",
        f"  gain {one.served_gain:.4f}; the other: {_share(one)}: {SAID[one.verdict]}",
    ]


def _share(one: TrialReceipt) -> str:
    """The difference as a share of the gain, as far as it is known: a share of next to nothing is none."""
    gain = one.served_gain
    if gain <= 0:
        return f"{one.difference:+.4f}, and no share of a gain of 0"
    low, high = one.low / gain, one.high / gain
    if low <= -1 and high >= 1:
        return "too few lists to say more than that"
    least = f"{low:+.1%}" if low > -1 else "-100%"
    most = f"{high:+.1%}" if high < 10 else "more than tenfold"
    return f"{one.difference / gain:+.1%}, between {least} and {most}"


SAID: Final = {
    "undecided": "not decided yet",
    "worse": "worse, rolled back",
    "better": "better: `freshet model canary` or `activate` would use it",
}
