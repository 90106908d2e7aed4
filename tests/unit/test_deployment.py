"""The identity of a deployment: settings that must not change under its state, and those that may."""

import importlib
import inspect
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisSettings
from adapters.secrets.key_rings import begin_rotation, end_rotation, new_key_ring
from jobs import registration
from jobs.deployment import (
    Deployment,
    complaint_about_record,
    complaint_about_snapshot,
    decode_pins,
    deployment_of,
    encode_pins,
)
from jobs.registration import (
    HEADS_ENOUGH,
    complaint_about_buckets,
    last_recorded,
    load_deployed,
    load_for_opt_out,
    load_for_submission,
)
from jobs.settings import ModelSettings, Settings
from schemas.audit import SignedHead
from schemas.errors import SettingsError
from schemas.pseudonyms import KeyRing

IDS = {"consents": "c-1", "interactions": "i-1", "control": "k-1"}
RING = new_key_ring()


def deployment(ring: KeyRing = RING, ids: dict[str, str] = IDS, mode: str = "thread", **changed: Any) -> Deployment:
    settings = Settings(KafkaSettings("b:1"), RedisSettings(["redis://c"]), ModelSettings(directory="/m"))
    for name, value in changed.items():
        table, field = name.split("__")
        settings = msgspec.structs.replace(
            settings, **{table: msgspec.structs.replace(getattr(settings, table), **{field: value})}
        )
    return deployment_of(settings, ring, mode, ids)


BEFORE = deployment()
CHANGES: dict[str, Callable[[], Deployment]] = {
    "job.buckets is 8": lambda: deployment(job__buckets=8),
    "job.max_parallelism is 256": lambda: deployment(job__max_parallelism=256),
    'redis.prefix is "other:"': lambda: deployment(redis__prefix="other:"),
    "python.execution-mode is process": lambda: deployment(mode="process"),
    "the id of topic consents is c-2": lambda: deployment(ids={**IDS, "consents": "c-2"}),
    "the fingerprint of the routing key": lambda: deployment(msgspec.structs.replace(RING, routing="ab" * 32)),
}


@pytest.mark.privacy
@pytest.mark.parametrize("complaint", CHANGES)
def test_state_orphaning_change_is_refused_with_a_remedy(complaint: str) -> None:
    now = CHANGES[complaint]()
    found = complaint_about_record(BEFORE, now) or ""
    assert complaint in found and "--new-deployment" in found
    assert complaint_about_snapshot(BEFORE.pins(), now.pins()) is not None
    assert (
        complaint_about_record(BEFORE, BEFORE) is None
        and complaint_about_snapshot(BEFORE.pins(), BEFORE.pins()) is None
    )


@pytest.mark.privacy
def test_another_key_ring_is_refused_and_a_rotation_is_not() -> None:
    rotating = begin_rotation(RING, 1)
    ended = end_rotation(rotating)
    steps = [deployment(ring) for ring in (RING, rotating, ended)]
    for before, after in pairwise(steps):
        assert complaint_about_record(before, after) is None
    assert "is not the key 1" in (complaint_about_record(BEFORE, deployment(replaced("user"))) or "")
    assert "pseudonyms were made with key 2" in (complaint_about_record(steps[1], steps[0]) or "")
    assert "pseudonyms were made with key 1" in (complaint_about_record(steps[0], steps[2]) or "")
    for domain in ("session", "event", "request", "export"):
        assert f"`{domain}`" in (complaint_about_record(BEFORE, deployment(replaced(domain))) or "")


def replaced(domain: str) -> KeyRing:
    """The ring with another key for `domain`, like a ring that was recreated after a loss."""
    keys: Any = {**RING.keys, domain: {"1": "cd" * 32}}
    return msgspec.structs.replace(RING, keys=keys)


@pytest.mark.privacy
def test_recorded_deployment_contains_no_key() -> None:
    recorded = msgspec.json.encode(BEFORE) + encode_pins(BEFORE.pins()).encode()
    for key in (RING.routing, *(key for kids in RING.keys.values() for key in kids.values())):
        assert key.encode() not in recorded and key[:16].encode() not in recorded


def test_pins_round_trip_with_any_prefix() -> None:
    pins = deployment(redis__prefix="a=b\nc").pins()
    assert decode_pins(encode_pins(pins)) == pins


def test_pins_of_later_release_are_no_mismatch() -> None:
    assert complaint_about_snapshot({**BEFORE.pins(), "new": "1"}, BEFORE.pins()) is None


def heads(*buckets: int, epoch: int = 5) -> list[SignedHead]:
    return [SignedHead(bucket, epoch, seq, "", 0, "", "") for seq, bucket in enumerate(buckets)]


@pytest.mark.privacy
def test_first_record_is_compared_with_the_audit_trail_buckets() -> None:
    four = heads(*[0, 1, 2, 3] * (HEADS_ENOUGH // 4))
    assert complaint_about_buckets(four, 4) is None
    assert "ends in 4 buckets" in (complaint_about_buckets(four, 8) or "")
    assert "ends in 4 buckets" in (complaint_about_buckets(four, 2) or "")
    assert complaint_about_buckets(heads(0, 1), 8) is None, "few users: nothing can be said"
    assert complaint_about_buckets(heads(7, epoch=1) + four, 4) is None, "only the last job counts"
    assert complaint_about_buckets([], 4) is None


def recorded_as(monkeypatch: pytest.MonkeyPatch, *values: bytes | None) -> None:
    settings = Settings(KafkaSettings("b:1"), RedisSettings(["redis://c"]), ModelSettings(directory="/m"))
    found = [SimpleNamespace(key=registration.KEY, value=value) for value in values]
    monkeypatch.setattr(registration, "records", lambda kafka, name: iter(found))
    monkeypatch.setattr(registration, "require_reachable_broker", lambda kafka: None)
    monkeypatch.setattr(registration, "has_topic", lambda kafka, name: True)
    monkeypatch.setattr(registration, "load_settings", lambda path: settings)
    monkeypatch.setattr(registration, "load_key_ring", lambda path: RING)


RECORD = msgspec.json.encode(BEFORE)
OTHER = msgspec.json.encode(msgspec.structs.replace(BEFORE, buckets=8))


def test_unreadable_record_is_skipped_for_the_previous_one_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded_as(monkeypatch, OTHER, RECORD, b"{", None)
    assert last_recorded(KafkaSettings("b:1")) == BEFORE
    assert "deployment cannot be read" in capsys.readouterr().err
    load_deployed(Path("settings"))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_for_submission(Path("settings"))
    recorded_as(monkeypatch, b"{", RECORD)
    capsys.readouterr()
    assert last_recorded(KafkaSettings("b:1")) == BEFORE
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [b"{", b"", b"[" * 100_000, b"\xff"])
def test_unreadable_records_give_a_remedy(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    recorded_as(monkeypatch, value)
    with pytest.raises(SettingsError, match="--new-deployment"):
        load_deployed(Path("settings"))


@pytest.mark.privacy
@pytest.mark.parametrize("values", [[b"{"], [RECORD, b"{"], [OTHER, b"{"]])
def test_withdrawal_works_without_a_readable_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], values: list[bytes]
) -> None:
    recorded_as(monkeypatch, *values)
    load_for_opt_out(Path("settings"))
    assert "not compared" in capsys.readouterr().err


@pytest.mark.privacy
def test_withdrawal_with_mismatched_settings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_as(monkeypatch, msgspec.json.encode(msgspec.structs.replace(BEFORE, redis_prefix="other:")))
    with pytest.raises(SettingsError, match=r"redis\.prefix .*: give the settings file of the job that runs"):
        load_for_opt_out(Path("settings"))


@pytest.mark.privacy
@pytest.mark.parametrize("changed", [{"buckets": 8}, {"mode": "process"}, {"max_parallelism": 64}])
def test_withdrawal_works_while_buckets_or_the_mode_change(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    recorded_as(monkeypatch, msgspec.json.encode(msgspec.structs.replace(BEFORE, **changed)))
    load_for_opt_out(Path("settings"))


def test_submission_refuses_unreadable_last_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded_as(monkeypatch, RECORD, b"{")
    submission = registration.Registration.__new__(registration.Registration)
    submission._kafka = KafkaSettings("b:1")
    submission.recorded, submission.newest_is_unreadable = registration.newest_readable(submission._kafka)
    with pytest.raises(SettingsError, match="cannot be read"):
        submission.take(BEFORE, replace=False)


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("module", "function"),
    [("consent", "withdraw"), ("consent", "record"), ("erase", "user"), ("erase", "rewrite_events")],
)
def test_consent_and_erasure_commands_load_settings_leniently(module: str, function: str) -> None:
    source = inspect.getsource(getattr(importlib.import_module(f"freshet.cli.{module}"), function))
    assert "load_for_opt_out" in source
