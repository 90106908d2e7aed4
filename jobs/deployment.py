"""The identity of a deployment: the settings that its state, topics and lists depend on.

A job whose buckets, keys, execution mode, prefixes or topics differ from those of its state would not fail. It would
leave behind profiles that no erasure reaches. So the identity is recorded outside the settings file and compared at
each submission: in the topic `deployment` (:mod:`jobs.registration`), and in every checkpoint and savepoint
(`jobs/java/freshet/SnapshotGuard.java`, :mod:`jobs.snapshots`).

Keys are identified by fingerprints: HMAC-SHA-256 of a fixed text under the key, which reveal nothing else about it.
"""

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from jobs.settings import Settings
from schemas.pseudonyms import DOMAINS, KeyRing, fingerprint, user_fingerprints

BEGIN_ANEW: Final = (
    "put it back, or start over with empty state: submit without -s and with --new-deployment (profiles are lost, "
    "consents are read again from the topic)"
)
AS_SUBMITTED: Final = "give the settings file of the job that runs"
LAYOUT: Final = frozenset(
    {"job.buckets", "job.max_parallelism", "python.execution-mode", "the fingerprint of the routing key"}
)
"""The pins that say how state is laid out: with others, the same deployment can rebuild its state from the topics."""

BITS_BY: Final = "the number of buckets that users' bits are derived from"


class Deployment(msgspec.Struct, frozen=True):
    """The recorded identity. `topic_ids` are Kafka's ids by our short names; a re-created topic gets a new one.

    `users` holds fingerprints of the pseudonym keys by key id; `hashes` those of the other keys, by domain. `epoch` is
    the submission time in ms, later than that of every earlier submission. `trail` is the id that the job's signatures
    are bound to (:func:`jobs.trail.trail_id`); it may change, and the audit trail then records the change. `bits_by` is
    the number of buckets that the deployment began with, if it has another number now, else 0. `side`
    changes with each take-over: two jobs that run at once have different consumer groups and transactional ids.
    """

    buckets: int
    max_parallelism: int
    mode: str
    topic_prefix: str
    redis_prefix: str
    routing: str
    current_key: int
    users: dict[str, str]
    hashes: dict[str, str]
    topic_ids: dict[str, str]
    epoch: int = 0
    trail: str = ""
    bits_by: int = 0
    side: str = ""

    def users_bits_by(self) -> int:
        """What :func:`udfs.popularity.user_bit_of` divides by: a user keeps their bit when buckets change."""
        return self.bits_by or self.buckets

    def rebucketed(self, buckets: int) -> "Deployment":
        """This deployment with another number of buckets."""
        return msgspec.structs.replace(self, buckets=buckets, bits_by=self.users_bits_by())

    def layout(self) -> dict[str, str]:
        """The pins that say how state is laid out, and that differ between jobs of one deployment."""
        return {name: value for name, value in self.pins().items() if name in MAY_DIFFER}

    def pins(self) -> dict[str, str]:
        """What every snapshot stores, as name → value, unchanged for the life of the state.

        User keys rotate, so are left out.
        """
        pins = {
            "job.buckets": str(self.buckets),
            "job.max_parallelism": str(self.max_parallelism),
            "python.execution-mode": self.mode,
            "kafka.topic_prefix": json.dumps(self.topic_prefix),
            "redis.prefix": json.dumps(self.redis_prefix),
            "the fingerprint of the routing key": self.routing,
        }
        if self.bits_by:
            pins[BITS_BY] = str(self.bits_by)
        return pins | {f"the id of topic {name}": topic_id for name, topic_id in self.topic_ids.items()}


def deployment_of(
    settings: Settings, ring: KeyRing, mode: str, topic_ids: Mapping[str, str], trail: str = ""
) -> Deployment:
    """The identity that follows from these settings, key ring, execution mode and topics."""
    current = str(ring.current)
    others = [domain for domain in DOMAINS if domain != "user" and current in ring.keys.get(domain, {})]
    return Deployment(
        buckets=settings.job.buckets,
        max_parallelism=settings.job.max_parallelism,
        mode=mode,
        topic_prefix=settings.kafka.topic_prefix,
        redis_prefix=settings.redis.prefix,
        routing=fingerprint(ring.routing),
        current_key=ring.current,
        users=user_fingerprints(ring),
        hashes={domain: fingerprint(ring.keys[domain][current]) for domain in others},
        topic_ids=dict(topic_ids),
        trail=trail,
    )


def encode_pins(pins: Mapping[str, str]) -> str:
    """Encode pins for the state: one line `name=value` each."""
    return "".join(f"{name}={value}\n" for name, value in sorted(pins.items()))


def decode_pins(text: str) -> dict[str, str]:
    """
    >>> decode_pins(encode_pins({"job.buckets": "4", "redis.prefix": '"a=b"'}))
    {'job.buckets': '4', 'redis.prefix': '"a=b"'}
    """
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}


def complaint_about_snapshot(snapshot: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Explain why a job with the pins `now` must not restore a snapshot with the pins `snapshot`; None if it may."""
    for name in sorted(snapshot.keys() & now.keys()):
        if snapshot[name] != now[name]:
            return (
                f"the snapshot was taken with {name} {snapshot[name]}, and this submission has {now[name]}: its state "
                "would be out of reach of consents and erasures. Restore it with the settings it was taken with: "
                f"{BEGIN_ANEW}"
            )
    return None


MAY_DIFFER: Final = ("job.buckets", "job.max_parallelism", "python.execution-mode")
"""The pins that a job with empty state may have other values of, if it takes over from one."""


def complaint_about_successor(recorded: Deployment, now: Deployment) -> str | None:
    """Explain why `now` cannot take over from the `recorded` deployment; None if it can."""
    before, after = recorded.pins(), now.pins()
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name] and name not in MAY_DIFFER:
            return (
                f"{name} is {after[name]}, and the running job has {before[name]}: a job that takes over must share it"
            )
    return _complaint_about_keys(recorded, now)


def complaint_about_record(recorded: Deployment, now: Deployment) -> str | None:
    """Explain why `now` is not a submission of the `recorded` deployment; None if it is."""
    return _complaint_about_pins(recorded, now, frozenset(), BEGIN_ANEW) or _complaint_about_keys(recorded, now)


def complaint_about_command(recorded: Deployment, now: Deployment, needs_layout: bool) -> str | None:
    """Explain why a command with the settings of `now` would not reach the `recorded` deployment; None if it would.

    A withdrawal or an erasure does not depend on how state is laid out, and is not held up while that changes.
    """
    left_out = frozenset() if needs_layout else frozenset(MAY_DIFFER)
    return _complaint_about_pins(recorded, now, left_out, AS_SUBMITTED) or _complaint_about_keys(recorded, now)


def _complaint_about_pins(recorded: Deployment, now: Deployment, left_out: frozenset[str], remedy: str) -> str | None:
    before, after = recorded.pins(), now.pins()
    for name in sorted((before.keys() & after.keys()) - left_out):
        if before[name] != after[name]:
            return f"{name} is {after[name]}, and this deployment was last submitted with {before[name]}: {remedy}"
    return None


def _complaint_about_keys(recorded: Deployment, now: Deployment) -> str | None:
    keys = "bring back the key ring that the deployment was last submitted with"
    for kid in sorted(recorded.users.keys() & now.users.keys()):
        if recorded.users[kid] != now.users[kid]:
            return f"key {kid} of the key ring is not the key {kid} that pseudonyms were made with: {keys}"
    if str(recorded.current_key) not in now.users or now.current_key < recorded.current_key:
        return (
            f"pseudonyms were made with key {recorded.current_key}, and the current key of the key ring is "
            f"{now.current_key}: {keys}; only `freshet rotate` changes keys"
        )
    for domain in sorted(recorded.hashes.keys() & now.hashes.keys()):
        if recorded.hashes[domain] != now.hashes[domain]:
            return f"the key ring has another key for the domain `{domain}`: {keys}"
    return None


SIDES: Final = ("", "second")


def other_side(side: str) -> str:
    """The side of a job that takes over from one of `side`.

    >>> other_side(""), other_side("second")
    ('second', '')
    """
    return SIDES[1 - SIDES.index(side)]


def on_side(settings: Settings, side: str) -> Settings:
    """`settings` with the consumer group, and so the transactional ids, of this side."""
    if not side:
        return settings
    kafka = msgspec.structs.replace(settings.kafka, group_id=f"{settings.kafka.group()}-{side}")
    return msgspec.structs.replace(settings, kafka=kafka)
