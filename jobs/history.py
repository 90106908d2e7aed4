"""The history of the `events` topic as JSON-lines on standard output, for training::

    python -m jobs.history --settings freshet.toml | python -m models.train - --out model

Only what was accepted under a consent to `train`, as it stood when the event was accepted; pseudonyms, never user ids.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from jobs.kafka_reading import records
from jobs.settings import Settings, load_settings
from schemas import topics
from schemas.errors import FreshetError


class _Purposes(msgspec.Struct):
    purposes: list[str]


def history(settings: Settings, purpose: str = "train") -> Iterator[bytes]:
    """The clean events that stand in the topic now and may be used for `purpose`, in the order of each partition."""
    decode = msgspec.json.Decoder(_Purposes).decode
    for record in records(settings, topics.EVENTS):
        if purpose in decode(record.value).purposes:
            yield record.value


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.history", description="Print the clean events as JSON-lines.")
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    options = parser.parse_args(arguments)
    events = 0
    try:
        for event in history(load_settings(options.settings)):
            sys.stdout.buffer.write(event + b"\n")
            events += 1
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{events} events", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
