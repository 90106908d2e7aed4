"""The Kafka topics: names, partitions, cleanup and retention. A configurable prefix is put before each name."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from schemas.errors import SettingsError

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


class Topic(msgspec.Struct, frozen=True):
    """The settings with which a topic is created. `partitions` 0 means: as many as the raw topics have.

    `segment_ms` is how long records are appended to a segment: Kafka deletes and compacts only closed segments.
    `foreign`: third-party producers write to it and may send batches that are small only while compressed.
    """

    name: str
    holds: str
    retention_ms: int | None
    partitions: int = 0
    compacted: bool = False
    segment_ms: int = DAY_MS
    foreign: bool = False

    def life_max_ms(self) -> int | None:
        """The maximum age of a record before it is deleted from disk; None if the last one of a key is kept."""
        if self.retention_ms is None:
            return None
        return self.retention_ms + self.segment_ms + RETENTION_CHECK_MAX_MS + FILE_DELETE_DELAY_MS


INTERACTIONS: Final = "interactions"
CONSENTS: Final = "consents"
CATALOGUE: Final = "catalogue"
CONTROL: Final = "control"
DEAD_LETTERS: Final = "dead-letters"
RECEIPTS: Final = "receipts"
ANSWERS: Final = "answers"
EVENTS: Final = "events"
METRICS: Final = "metrics"
AUDIT: Final = "audit"
AUDIT_HEADS: Final = "audit-heads"
DEPLOYMENT: Final = "deployment"

INTERACTIONS_RETENTION_MS: Final = 3 * DAY_MS
EVENTS_RETENTION_MS: Final = 90 * DAY_MS
RECEIPTS_RETENTION_MS: Final = 7 * DAY_MS
METRICS_RETENTION_MS: Final = 7 * DAY_MS
ANSWERS_RETENTION_MS: Final = HOUR_MS
DEAD_LETTERS_RETENTION_MS: Final = 14 * DAY_MS
AUDIT_RETENTION_MS: Final = 3 * 365 * DAY_MS
"""For as long as somebody may ask how a consent was handled; most statutes of limitations are three years."""
CONSENTS_COMPACTION_LAG_MS: Final = 7 * DAY_MS
"""At least the age of the oldest snapshot that may be restored: compaction must not resurrect a consent."""
MESSAGE_BYTES_MAX: Final = 1_048_588
"""The limit of a batch as stored; Kafka's default."""
AT_MOST: Final = frozenset(
    {"retention.ms", "segment.ms", "file.delete.delay.ms", "max.compaction.lag.ms", "max.message.bytes"}
)
AT_LEAST: Final = frozenset({"min.compaction.lag.ms"})
"""An existing topic may have lower values for `AT_MOST` and higher ones for these; all others must be equal."""
PURGED_EVERY_MS: Final = DAY_MS
"""How often `freshet erase purge-consents` must run; each run appends to every partition of `consents`."""
RETENTION_CHECK_MAX_MS: Final = HOUR_MS
"""The longest accepted `log.retention.check.interval.ms` of brokers; Kafka's default is 5 minutes."""
FILE_DELETE_DELAY_MS: Final = MINUTE_MS

TOPICS: Final[tuple[Topic, ...]] = (
    Topic(INTERACTIONS, "raw interactions, key = user id", INTERACTIONS_RETENTION_MS, foreign=True),
    Topic(CONSENTS, "raw consent changes, key = user id", None, compacted=True, foreign=True),
    Topic(CATALOGUE, "items, key = item id", None, partitions=1, compacted=True, foreign=True),
    Topic(CONTROL, "commands to the job", INTERACTIONS_RETENTION_MS, partitions=1, foreign=True),
    Topic(DEAD_LETTERS, "rejects: reason and origin, never the payload", DEAD_LETTERS_RETENTION_MS, partitions=1),
    Topic(RECEIPTS, "what the job did: lists written, consents in force, accounts", RECEIPTS_RETENTION_MS),
    Topic(ANSWERS, "what was held of a person, for those who asked", ANSWERS_RETENTION_MS, segment_ms=10 * MINUTE_MS),
    Topic(
        METRICS, "what users did with lists, by model, arm and surface; no users", METRICS_RETENTION_MS, partitions=1
    ),
    Topic(EVENTS, "accepted interactions, pseudonymised and consented", EVENTS_RETENTION_MS),
    # One partition, so that retention only truncates the beginning. Several would be truncated at different times,
    # and the trail would have holes that look like dropped records. The order of the records can be verified, too.
    Topic(AUDIT, "the audit trail, a chain for each bucket", AUDIT_RETENTION_MS, partitions=1, segment_ms=7 * DAY_MS),
    Topic(
        AUDIT_HEADS,
        "signed ends of the chains of the audit trail",
        AUDIT_RETENTION_MS,
        partitions=1,
        segment_ms=7 * DAY_MS,
    ),
    Topic(DEPLOYMENT, "settings that the state depends on, as last submitted", None, partitions=1, compacted=True),
)

PREFIX_LENGTH_MAX: Final = 249 - max(len(topic.name) for topic in TOPICS)
"""The length of a topic prefix: Kafka's limit for the name of a topic is 249."""
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]*")


def complaint_of_prefix(prefix: str) -> str | None:
    """Say why Kafka would refuse the names of topics that begin with `prefix`; None if it would not.

    >>> complaint_of_prefix("shop.")
    >>> complaint_of_prefix("shop/")
    'topic_prefix may contain only ASCII letters, digits, dots, underscores and hyphens'
    """
    if not _PREFIX.fullmatch(prefix):
        return "topic_prefix may contain only ASCII letters, digits, dots, underscores and hyphens"
    if len(prefix) > PREFIX_LENGTH_MAX:
        return f"topic_prefix has {len(prefix)} characters, and may have at most {PREFIX_LENGTH_MAX}"
    return None


def prefixed(prefix: str, name: str) -> str:
    """The full name of the topic `name`. Raises :class:`SettingsError` if Kafka would refuse the prefix."""
    if complaint := complaint_of_prefix(prefix):
        raise SettingsError(complaint)
    return prefix + name


def compaction_lag_ms(snapshots_kept_ms: int) -> int:
    """How long compaction leaves a record unchanged, and how long it keeps a record without a value."""
    return max(CONSENTS_COMPACTION_LAG_MS, snapshots_kept_ms)


def compacted_ms(lag_ms: int) -> int:
    """The maximum time that a record stays in a compacted topic after a later one of its key.

    Its segment accepts records for a day and is closed by the first record after that; once its newest record is older
    than the lag, it must be cleaned.
    """
    return DAY_MS + PURGED_EVERY_MS + lag_ms


def purged_key_ms(lag_ms: int) -> int:
    """The same for the key of a record without a value, which is deleted by the next cleaning after the lag."""
    return compacted_ms(lag_ms) + lag_ms + DAY_MS + PURGED_EVERY_MS


def topic_config(topic: Topic, snapshots_kept_ms: int = CONSENTS_COMPACTION_LAG_MS) -> dict[str, str]:
    """The broker settings of `topic`: append time is the clock that orders the two raw topics and expires records."""
    config: dict[str, str | int] = {
        "message.timestamp.type": "LogAppendTime",
        "segment.ms": topic.segment_ms,
        "file.delete.delay.ms": FILE_DELETE_DELAY_MS,
    }
    if topic.compacted:
        lag_ms = compaction_lag_ms(snapshots_kept_ms)
        config |= {"cleanup.policy": "compact", "min.compaction.lag.ms": lag_ms, "delete.retention.ms": lag_ms}
        config["max.compaction.lag.ms"] = lag_ms + DAY_MS
    if topic.foreign:
        # 900 MB of zeros are 0.9 MB as gzip but exceed any reader's memory: so the broker decompresses, then checks.
        config |= {"compression.type": "uncompressed", "max.message.bytes": MESSAGE_BYTES_MAX}
    if topic.retention_ms is not None:
        config |= {"cleanup.policy": "delete", "retention.ms": topic.retention_ms}
    return {name: str(value) for name, value in config.items()}


def mismatched_settings(wanted: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """The settings of a topic that keep records longer or shorter than promised: name → required value.

    >>> mismatched_settings({"retention.ms": "10", "segment.ms": "5"}, {"retention.ms": "-1", "segment.ms": "4"})
    {'retention.ms': '10'}
    """
    return {name: value for name, value in wanted.items() if not _fits(name, value, found.get(name, ""))}


def _fits(name: str, wanted: str, found: str) -> bool:
    if name in AT_MOST:
        return found.isdigit() and int(found) <= int(wanted)  # -1 means unlimited
    if name in AT_LEAST:
        return found.isdigit() and int(found) >= int(wanted)
    return found == wanted


def interactions_life_max_ms() -> int:
    """The maximum age of a record of `interactions`, up to which an interaction may be read again."""
    [life_ms] = [topic.life_max_ms() for topic in TOPICS if topic.name == INTERACTIONS]
    assert life_ms is not None
    return life_ms
