"""The history of the `events` topic as JSON-lines on standard output, for training::

    python -m privacy.history --settings freshet.toml | python -m models.train - --out model

Only what may be trained on, by the rule of exports (:mod:`privacy.rules.export`): a consent to `train` that stands now,
and stood when the event was accepted. Pseudonyms, never user ids. `python -m privacy.export` writes files to keep.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from adapters.kafka.reading import TopicAsOfNow
from jobs.clock import clock_ms
from jobs.registration import load_deployed
from jobs.settings import Settings
from privacy.rules.export import Standing, Standings
from privacy.standings import read_standings
from schemas import topics
from schemas.consents import Purpose
from schemas.errors import FreshetError
from schemas.events import CleanEvent
from schemas.exports import LeftOut
from schemas.pseudonyms import Pseudonymiser, load_key_ring


class PublishedEvent(CleanEvent, kw_only=True):
    """A record of `events`: a clean event and the purposes that were granted when it was accepted."""

    purposes: tuple[str, ...] = ()


class Permitted(NamedTuple):
    """An event that may be used, when it was appended (ms), how its user stands, and its bytes."""

    event: PublishedEvent
    appended: int
    standing: Standing
    raw: bytes


_decode: Final = msgspec.json.Decoder(PublishedEvent).decode


def permitted(
    stream: Iterable[Any], standings: Standings, now_ms: int, left_out: Counter[LeftOut]
) -> Iterator[Permitted]:
    """Those records of `events` that may be used for the purpose of `standings`; the others are counted by reason.

    Records of releases that did not say when an interaction was appended are as old as they are in `events`.
    """
    for record in stream:
        try:
            event = _decode(record.value or b"")
        except (ValueError, RecursionError):
            left_out[LeftOut.UNREADABLE] += 1
            continue
        appended = event.appended or record.timestamp
        standing = standings.get(event.pseudonym)
        reason = standings.may_export(standing, event.purposes, appended, now_ms)
        if reason is None and standing is not None:
            yield Permitted(event, appended, standing, record.value)
        elif reason is not None:
            left_out[reason] += 1


def history(settings: Settings, purpose: Purpose = "train") -> Iterator[bytes]:
    """The clean events that stand in the topic now and may be used for `purpose`, in the order of each partition."""
    hashes = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
    events = TopicAsOfNow(settings.kafka, topics.EVENTS)
    try:
        standings = read_standings(settings, purpose, hashes.all)
        now_ms = clock_ms()
        yield from (event.raw for event in permitted(events, standings, now_ms, Counter()))
    finally:
        events.close()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m privacy.history", description="Print the clean events as JSON-lines."
    )
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    options = parser.parse_args(arguments)
    events = 0
    try:
        for event in history(load_deployed(options.settings)):
            sys.stdout.buffer.write(event + b"\n")
            events += 1
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{events} events", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
