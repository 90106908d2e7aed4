"""Consents and clean events for tests of exports, and a naive version of the rule of exports."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from adapters.files.export_parts import part_events
from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisSettings
from jobs.settings import ExportSettings, ModelSettings, Settings
from privacy.export import write
from privacy.rules.export_eligibility import Standings
from privacy.standings import standings_of
from schemas.consents import PURPOSES, Purpose
from schemas.exports import ExportManifest
from schemas.pseudonyms import ExportHashes
from schemas.wire.codecs import json_codec
from tests.support.vocabulary import BEGINNING, CONSENTS, KEY_RING, PSEUDONYMISER, a_raw_interaction, an_ingest
from udfs.elements import unpack
from udfs.ingest import RawRecord
from udfs.personalise import clean_event
from udfs.policy import UNRESTRICTED
from udfs.state import UserState

SETTINGS = Settings(
    KafkaSettings("nowhere:1"), RedisSettings(url="redis://nowhere"), ModelSettings(directory="/nowhere")
)
INGEST = an_ingest()


def settings(**export: Any) -> Settings:
    return msgspec.structs.replace(SETTINGS, export=ExportSettings(**export))


def standings(records: list[RawRecord], purpose: Purpose = "train", by_export_name: bool = False) -> Standings:
    """The consents that result from `records`, by pseudonym or, as in a rewrite, by export name."""
    hashes = ExportHashes(KEY_RING, purpose)
    if by_export_name:
        return standings_of(records, purpose, json_codec(), UNRESTRICTED, lambda user: [hashes.user(user)])
    return standings_of(records, purpose, json_codec(), UNRESTRICTED, PSEUDONYMISER.all, hashes.user)


def an_event_as_published(
    user: str = "ada", appended: int = BEGINNING, purposes: int = 0b111, **fields: Any
) -> SimpleNamespace:
    """A record of `events`, made by the job's rules from an interaction appended at `appended`."""
    raw = a_raw_interaction(user, at=fields.pop("at", appended), appended=appended, **fields)
    [(_, element)] = INGEST.pack([raw])
    [event] = unpack(element).events
    return SimpleNamespace(value=clean_event(event, UserState(level=2, purposes=purposes)), timestamp=appended + 7)


def an_export(
    folder: Path, events: list[Any], consents: list[RawRecord], now_ms: int, purpose: Purpose = "train", **export: Any
) -> ExportManifest:
    folder.mkdir(exist_ok=True)
    hashes = ExportHashes(KEY_RING, purpose)
    return write(settings(**export), folder, events, standings(consents, purpose), hashes, now_ms)


def lines(folder: Path, manifest: ExportManifest) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(event) for part in manifest.parts for event in part_events(folder, part)]


def naive_may_export(
    consents: list[dict[str, Any] | None], appended: list[int], event_at: int, then: list[str], purpose: str, now: int
) -> bool:
    """Granted when the event was accepted, and at every moment from its append time until now.

    `consents` are the bodies of one user's records in topic order (None: no value), `appended` their append times.
    """
    in_force: list[tuple[int, dict[str, Any] | None]] = []
    said_no, alone = 0, False  # alone: the last word grants something, but not to personalise
    for body, at in zip(consents, appended, strict=True):
        said = at if body is None else min(body["ts"], at)
        if not _grants(body, "personalise"):
            others = body is not None and body["level"] == "full" and any(_grants(body, one) for one in PURPOSES)
            alone = others and (said >= said_no if alone else said > said_no)
            body = body if alone else None
            said_no = max(said_no, said)
        elif said <= said_no:
            continue
        else:
            alone = False
        in_force.append((at, body))
    before = [place for place, (at, _) in enumerate(in_force) if at <= event_at]
    if not before or purpose not in then:
        return False
    for place in range(before[-1], len(in_force)):
        at, body = in_force[place]
        end = in_force[place + 1][0] if place + 1 < len(in_force) else now
        if not _grants(body, purpose) or body["level"] != "full":
            return False
        if body.get("expires_at") and body["expires_at"] <= end:
            return False
    return True


def _grants(body: dict[str, Any] | None, purpose: str) -> bool:
    if body is None or body["level"] == "none" or body.get("erase"):
        return False
    return purpose in body.get("granted", PURPOSES) and purpose not in body.get("denied", [])


def a_raw_record_of(body: dict[str, Any] | None, user: str, at: int, offset: int) -> RawRecord:
    value = None if body is None else json.dumps({"user_id": user, **body}).encode()
    return RawRecord(CONSENTS, 0, offset, at, user.encode(), value)
