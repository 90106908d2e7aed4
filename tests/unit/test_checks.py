"""What is refused at submission because something that has ended could come back."""

import pytest

from adapters.redis.address import RedisSettings
from jobs.checks import complaint_of
from jobs.settings import ModelSettings, PrivacySettings, Settings
from schemas.kafka_settings import KafkaSettings
from schemas.topics import CONSENTS, INTERACTIONS, TOPICS, topic_config
from tests.support.vocabulary import DAY, HOUR

CONFIG = {topic.name: topic_config(topic) for topic in TOPICS}


def settings_of(**privacy: int) -> Settings:
    kafka, model = KafkaSettings("broker:9092", topic_prefix="t."), ModelSettings("/model")
    return Settings(kafka, RedisSettings(url="redis://cache"), model, PrivacySettings(**privacy))  # type: ignore[arg-type]


def complaint(settings: Settings, **changed: dict[str, str]) -> str:
    config = {name: {**CONFIG[name], **changed.get(name, {})} for name in (INTERACTIONS, CONSENTS)}
    return complaint_of(settings, config[INTERACTIONS], config[CONSENTS]) or ""


def test_the_topics_as_we_create_them_are_accepted() -> None:
    assert complaint(settings_of()) == ""


@pytest.mark.parametrize("name", ["min.compaction.lag.ms", "delete.retention.ms"])
def test_compaction_before_the_oldest_snapshot_is_refused(name: str) -> None:
    assert f"t.consents has {name}=1" in complaint(settings_of(), consents={name: "1"})
    assert f"{name}=0" in complaint(settings_of(), consents={name: "0"})
    longer = settings_of(snapshots_kept_ms=8 * DAY)
    assert "min.compaction.lag.ms" in complaint(longer)
    assert complaint(settings_of(), consents={"cleanup.policy": "delete", name: "1"}) == "", "nothing is compacted"


@pytest.mark.parametrize("retention_ms", [-1, 7 * DAY + 1])
def test_interactions_that_outlive_a_tombstone_are_refused(retention_ms: int) -> None:
    assert "privacy.tombstone_ms must be a day longer" in complaint(
        settings_of(), interactions={"retention.ms": str(retention_ms)}
    )
    assert complaint(settings_of(), interactions={"retention.ms": str(7 * DAY)}) == ""
    assert complaint(settings_of(tombstone_ms=9 * DAY), interactions={"retention.ms": str(8 * DAY - HOUR)}) == ""


@pytest.mark.parametrize("topic", [INTERACTIONS, CONSENTS])
def test_producers_clocks_are_refused(topic: str) -> None:
    assert "LogAppendTime" in complaint(settings_of(), **{topic: {"message.timestamp.type": "CreateTime"}})
