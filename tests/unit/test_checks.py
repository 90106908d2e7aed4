"""Submission refuses settings by which ended data could return, or be kept longer than promised."""

import pytest

from jobs.checks import complaint_of_broker, complaint_of_topics
from privacy.retention import DEFAULTS
from schemas.topics import (
    AUDIT,
    CATALOGUE,
    CONSENTS,
    CONTROL,
    DEPLOYMENT,
    EVENTS,
    INTERACTIONS,
    TOPICS,
    interactions_life_max_ms,
    mismatched_settings,
    topic_config,
)
from tests.support.vocabulary import DAY, HOUR, MINUTE

CONFIG = {topic.name: topic_config(topic) for topic in TOPICS}


def complaint(topic: str, name: str, value: str, kept_ms: int = DAY) -> str:
    """The message if `topic` has another value of one setting, and snapshots are kept that long."""
    [wanted] = [topic_config(one, kept_ms) for one in TOPICS if one.name == topic]
    changes = mismatched_settings(wanted, {**CONFIG[topic], name: value})
    return complaint_of_topics({f"t.{topic}": changes} if changes else {}) or ""


def test_created_topics_are_accepted() -> None:
    assert all(not mismatched_settings(config, config) for config in CONFIG.values())
    assert complaint_of_topics({}) is None


def test_topics_are_created_with_their_retention_settings() -> None:
    """The tests below check only settings with which a topic is created."""
    every = {"message.timestamp.type": "LogAppendTime", "segment.ms": str(DAY), "file.delete.delay.ms": str(MINUTE)}
    foreign = {"compression.type": "uncompressed", "max.message.bytes": "1048588"}
    deleted, lag = {"cleanup.policy": "delete"}, str(7 * DAY)
    compacted = {"cleanup.policy": "compact", "min.compaction.lag.ms": lag, "delete.retention.ms": lag}
    assert CONFIG[INTERACTIONS] == {**every, **foreign, **deleted, "retention.ms": str(3 * DAY)}
    assert CONFIG[EVENTS] == {**every, **deleted, "retention.ms": str(90 * DAY)}
    assert CONFIG[CONSENTS] == {**every, **foreign, **compacted, "max.compaction.lag.ms": str(8 * DAY)}
    assert {topic.name for topic in TOPICS if topic.foreign} == {INTERACTIONS, CONSENTS, CATALOGUE, CONTROL}
    assert {topic.name for topic in TOPICS if topic.compacted} == {CONSENTS, CATALOGUE, DEPLOYMENT}


@pytest.mark.parametrize("topic", CONFIG)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("retention.ms", ("{}", "-1", "")),
        ("segment.ms", ("{}", "", "9223372036854775807")),
        ("file.delete.delay.ms", ("{}", "")),
        ("max.compaction.lag.ms", ("{}", "9223372036854775807")),
        ("max.message.bytes", ("{}", "")),
        ("compression.type", ("producer", "gzip", "")),
        ("message.timestamp.type", ("CreateTime",)),
        ("cleanup.policy", ("compact,delete", "")),
    ],
)
def test_longer_retention_is_refused(topic: str, name: str, values: tuple[str, ...]):
    wanted = CONFIG[topic].get(name)
    for value in values if wanted else ():
        longer = value.format(int(wanted or 0) + 1) if "{" in value else value
        assert f"t.{topic} needs {name}" in complaint(topic, name, longer)
    if wanted and wanted.isdigit():
        assert complaint(topic, name, str(int(wanted) - 1)) == "", "less is what was promised"


@pytest.mark.parametrize("name", ["min.compaction.lag.ms", "delete.retention.ms"])
def test_compaction_before_the_oldest_snapshot_is_refused(name: str) -> None:
    assert f"t.consents needs {name}" in complaint(CONSENTS, name, "1")
    assert name in complaint(CONSENTS, "nothing", "", kept_ms=8 * DAY)
    assert complaint(CONSENTS, "min.compaction.lag.ms", str(8 * DAY)) == ""


def test_complaint_names_the_remedy() -> None:
    said = complaint(EVENTS, "segment.ms", str(7 * DAY))
    assert "segment.ms ≤ 86400000" in said and "freshet topics --settings … --alter" in said


def test_tombstones_outlive_interactions_by_a_day() -> None:
    life = interactions_life_max_ms()
    config = CONFIG[INTERACTIONS]
    assert life == sum(int(config[name]) for name in ("retention.ms", "segment.ms", "file.delete.delay.ms")) + HOUR
    assert DEFAULTS.tombstone_ms() >= life + DAY
    assert int(CONFIG[AUDIT]["segment.ms"]) == 7 * DAY


def broker_complaint(**settings: str) -> str:
    return complaint_of_broker({name.replace("_", "."): value for name, value in settings.items()}, 7 * DAY, DAY) or ""


def test_broker_with_rare_or_no_compaction_is_refused() -> None:
    assert broker_complaint() == ""
    assert broker_complaint(log_retention_check_interval_ms=str(5 * MINUTE), log_cleaner_enable="true") == ""
    assert "lower it on the brokers" in broker_complaint(log_retention_check_interval_ms=str(HOUR + 1))
    assert "log.cleaner.enable" in broker_complaint(log_retention_check_interval_ms="1", log_cleaner_enable="false")


def test_broker_forgetting_transactions_before_snapshots_is_refused() -> None:
    assert broker_complaint(transactional_id_expiration_ms=str(7 * DAY)) == ""
    assert "would restart for ever" in broker_complaint(transactional_id_expiration_ms=str(7 * DAY - 1))


def test_broker_aborting_transactions_before_the_job_is_back_is_refused() -> None:
    assert broker_complaint(transaction_max_timeout_ms=str(DAY)) == ""
    told = broker_complaint(transaction_max_timeout_ms="900000")
    assert "the brokers have transaction.max.timeout.ms=900000" in told
    assert "set transaction.max.timeout.ms=86400000 on every broker, or kafka.transaction_timeout_ms" in told
