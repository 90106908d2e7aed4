"""Reads the history of the `events` topic, for training on this machine (`freshet export history`).

It applies the rule of exports (:mod:`privacy.rules.export_eligibility`): the user's consent must allow `train` now, and
must have allowed it when the event was accepted. It yields pseudonyms, never user ids. Use :mod:`privacy.export` for
files to keep.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from adapters.kafka.reading import TopicAsOfNow
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.settings import Settings
from privacy.rules.export_eligibility import ConsentStanding, Standings
from privacy.standings import read_standings
from schemas import topics
from schemas.consents import Purpose
from schemas.events import CleanEvent
from schemas.exports import LeftOut
from schemas.pseudonyms import Pseudonymiser


class PublishedEvent(CleanEvent, kw_only=True):
    """A record of `events`: a clean event and the purposes that were granted when it was accepted."""

    purposes: tuple[str, ...] = ()


class Permitted(NamedTuple):
    """An event that may be used, its append time (ms), its user's consent, and its bytes."""

    event: PublishedEvent
    appended: int
    standing: ConsentStanding
    raw: bytes


_decode: Final = msgspec.json.Decoder(PublishedEvent).decode


def permitted(
    stream: Iterable[Any], standings: Standings, now_ms: int, left_out: Counter[LeftOut]
) -> Iterator[Permitted]:
    """The records of `events` that may be used for the purpose of `standings`; the others are counted by reason.

    If a record of an early release lacks the append time of its interaction, its own append time counts.
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
    """The clean events now in the topic that may be used for `purpose`, in the order of each partition."""
    hashes = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
    events = TopicAsOfNow(settings.kafka, topics.EVENTS)
    try:
        standings = read_standings(settings, purpose, hashes.all)
        now_ms = clock_ms()
        yield from (event.raw for event in permitted(events, standings, now_ms, Counter()))
    finally:
        events.close()
