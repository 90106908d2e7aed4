"""The identity of a deployment: what must not change below its state, and what may."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisSettings
from jobs.deployment import (
    Deployment,
    complaint_about_record,
    complaint_about_snapshot,
    decode_pins,
    deployment_of,
    encode_pins,
)
from jobs.registration import HEADS_ENOUGH, complaint_about_buckets
from jobs.settings import ModelSettings, Settings
from schemas.audit import SignedHead
from schemas.pseudonyms import KeyRing, begin_rotation, end_rotation, new_key_ring

IDS = {"consents": "c-1", "interactions": "i-1", "control": "k-1"}
RING = new_key_ring()


def deployment(ring: KeyRing = RING, ids: dict[str, str] = IDS, mode: str = "thread", **changed: Any) -> Deployment:
    settings = Settings(KafkaSettings("b:1"), RedisSettings(["redis://c"]), ModelSettings("/m"))
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
def test_a_change_that_would_orphan_state_is_refused_with_what_to_do(complaint: str) -> None:
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
    """The ring with another key for `domain`, as in a ring that was made anew in place of a lost one."""
    keys: Any = {**RING.keys, domain: {"1": "cd" * 32}}
    return msgspec.structs.replace(RING, keys=keys)


@pytest.mark.privacy
def test_no_key_is_in_what_is_recorded() -> None:
    recorded = msgspec.json.encode(BEFORE) + encode_pins(BEFORE.pins()).encode()
    for key in (RING.routing, *(key for kids in RING.keys.values() for key in kids.values())):
        assert key.encode() not in recorded and key[:16].encode() not in recorded


def test_pins_survive_the_state_whatever_is_in_a_prefix() -> None:
    pins = deployment(redis__prefix="a=b\nc").pins()
    assert decode_pins(encode_pins(pins)) == pins


def test_what_a_later_release_pins_besides_is_no_mismatch() -> None:
    assert complaint_about_snapshot({**BEFORE.pins(), "new": "1"}, BEFORE.pins()) is None


def heads(*buckets: int, epoch: int = 5) -> list[SignedHead]:
    return [SignedHead(bucket, epoch, seq, "", 0, "", "") for seq, bucket in enumerate(buckets)]


@pytest.mark.privacy
def test_a_first_record_is_compared_with_the_buckets_of_the_audit_trail() -> None:
    four = heads(*[0, 1, 2, 3] * (HEADS_ENOUGH // 4))
    assert complaint_about_buckets(four, 4) is None
    assert "ends in 4 buckets" in (complaint_about_buckets(four, 8) or "")
    assert "ends in 4 buckets" in (complaint_about_buckets(four, 2) or "")
    assert complaint_about_buckets(heads(0, 1), 8) is None, "few users: nothing can be said"
    assert complaint_about_buckets(heads(7, epoch=1) + four, 4) is None, "only the last job counts"
    assert complaint_about_buckets([], 4) is None
