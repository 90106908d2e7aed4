"""The Kafka topics: names, partitions, clean-up and retention. One configurable prefix stands before each name."""

from typing import Final

import msgspec

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


class Topic(msgspec.Struct, frozen=True):
    """A topic as it is created. `partitions` 0 means: as many as the raw topics have."""

    name: str
    holds: str
    retention_ms: int | None
    partitions: int = 0
    compacted: bool = False


INTERACTIONS: Final = "interactions"
CONSENTS: Final = "consents"
CATALOGUE: Final = "catalogue"
CONTROL: Final = "control"
DEAD_LETTERS: Final = "dead-letters"
RECEIPTS: Final = "receipts"
ANSWERS: Final = "answers"
EVENTS: Final = "events"
AUDIT: Final = "audit"
AUDIT_HEADS: Final = "audit-heads"
DEPLOYMENT: Final = "deployment"

INTERACTIONS_RETENTION_MS: Final = 3 * DAY_MS
EVENTS_RETENTION_MS: Final = 90 * DAY_MS
RECEIPTS_RETENTION_MS: Final = 7 * DAY_MS
ANSWERS_RETENTION_MS: Final = HOUR_MS
DEAD_LETTERS_RETENTION_MS: Final = 14 * DAY_MS
AUDIT_RETENTION_MS: Final = 3 * 365 * DAY_MS
"""As long as somebody may ask how a consent was kept; the statute of limitations of most places is three years."""
CONSENTS_COMPACTION_LAG_MS: Final = 7 * DAY_MS
"""At least the age of the oldest snapshot that may be restored: compaction must not resurrect a consent."""

TOPICS: Final[tuple[Topic, ...]] = (
    Topic(INTERACTIONS, "raw interactions, key = user id", INTERACTIONS_RETENTION_MS),
    Topic(CONSENTS, "raw consent changes, key = user id", None, compacted=True),
    Topic(CATALOGUE, "items, key = item id", None, partitions=1, compacted=True),
    Topic(CONTROL, "commands to the job", INTERACTIONS_RETENTION_MS, partitions=1),
    Topic(DEAD_LETTERS, "rejects: reason and origin, never the payload", DEAD_LETTERS_RETENTION_MS, partitions=1),
    Topic(RECEIPTS, "what the job did: lists written, consents in force, accounts", RECEIPTS_RETENTION_MS),
    Topic(ANSWERS, "what was held of a person, for those who asked", ANSWERS_RETENTION_MS),
    Topic(EVENTS, "accepted interactions, pseudonymised and consented", EVENTS_RETENTION_MS),
    # One partition, so that retention only ever cuts beginnings off. Of several, each is cut at its own time, and the
    # trail has holes that look like dropped records. The order of the records can be verified, too.
    Topic(AUDIT, "the audit trail, a chain for each bucket", AUDIT_RETENTION_MS, partitions=1),
    Topic(AUDIT_HEADS, "signed ends of the chains of the audit trail", AUDIT_RETENTION_MS, partitions=1),
    Topic(DEPLOYMENT, "settings that the state depends on, as last submitted", None, partitions=1, compacted=True),
)


def topic_config(topic: Topic) -> dict[str, str]:
    """The broker settings of `topic`: append time is the clock that orders the two raw topics."""
    config = {"message.timestamp.type": "LogAppendTime"}
    if topic.compacted:
        lag = str(CONSENTS_COMPACTION_LAG_MS)
        config |= {"cleanup.policy": "compact", "min.compaction.lag.ms": lag, "delete.retention.ms": lag}
    if topic.retention_ms is not None:
        config["retention.ms"] = str(topic.retention_ms)
    return config
