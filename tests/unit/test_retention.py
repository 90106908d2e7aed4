"""The retention table follows the settings and is complete."""

from pathlib import Path

import msgspec
import pytest

from freshet.cli.main import run
from jobs.settings import Settings
from privacy.retention import DEFAULTS, page, retention
from schemas.topics import ANSWERS, DAY_MS, TOPICS

RETENTIONS = {
    "profile.dedupe_horizon_ms": "9 days",
    "profile.session_gap_ms": "9 days",
    "profile.idle_profile_ttl_ms": "9 days",
    "refresh.list_ttl_ms": "9 days",
    "popularity.list_ttl_ms": "9 days",
    "learn.similar_ttl_ms": "9 days",
    "learn.trending_ttl_ms": "9 days",
    "privacy.snapshots_kept_ms": "9 days",
    "privacy.tombstone_ms": "9 days",
    "export.retention_days": "9 days",
    "features.ttl_ms": "9 days",
}
NO_RETENTIONS = {
    "kafka.transaction_timeout_ms",
    "redis.timeout_ms",
    "redis.connect_timeout_ms",
    "redis.outage_max_ms",
    "audit.heads_every_ms",
    "batch.wait_ms",
    "profile.counts_half_life_ms",
    "profile.recents_half_life_ms",
    "refresh.active_within_ms",
    "popularity.half_life_ms",
    "popularity.publish_every_ms",
    "feedback.window_ms",
    "feedback.publish_every_ms",
}
"""What has a time in it and keeps nothing. A new setting has to be put here or into the table."""


def changed(setting: str, value: int | str) -> Settings:
    table, _, name = setting.partition(".")
    return msgspec.structs.replace(
        DEFAULTS, **{table: msgspec.structs.replace(getattr(DEFAULTS, table), **{name: value})}
    )


def test_every_duration_setting_is_in_the_table_or_excluded() -> None:
    times = {
        f"{table}.{name}"
        for table in Settings.__struct_fields__
        for name in getattr(getattr(DEFAULTS, table), "__struct_fields__", ())
        if name.endswith(("_ms", "_days", "_s", "_hours"))
    }
    assert times == set(RETENTIONS) | NO_RETENTIONS
    told = {name.strip("`") for row in retention(DEFAULTS) for name in row.set_by.replace(";", ",").split(", ")}
    assert set(RETENTIONS) <= told and not NO_RETENTIONS & told


@pytest.mark.parametrize(("setting", "how_long"), RETENTIONS.items())
def test_a_changed_setting_changes_its_rows_and_only_those(setting: str, how_long: str) -> None:
    value = 9 if setting.endswith("_days") else 9 * DAY_MS
    before, after = retention(DEFAULTS), retention(changed(setting, value))
    different = [new for old, new in zip(before, after, strict=True) if old != new]
    assert different
    for row in different:
        follows = setting == "privacy.snapshots_kept_ms" and "privacy.tombstone_ms" in row.set_by
        assert follows or (f"`{setting}`" in row.set_by and how_long in row.how_long)


def test_every_topic_is_in_the_table_with_its_retention_and_its_prefix() -> None:
    rows = {
        row.what.split("`")[1]: row
        for row in retention(changed("kafka.topic_prefix", "shop."))
        if row.what.startswith("topic")
    }
    for topic in TOPICS:
        row = rows[f"shop.{topic.name}"]
        expected = "without end" if topic.retention_ms is None else f"{topic.retention_ms // DAY_MS} days"
        assert ("1 hour" if topic.name == ANSWERS else expected) in row.how_long


def test_published_table_uses_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["retention"]) == 0
    printed = capsys.readouterr().out
    published = Path(__file__).parents[2] / "docs" / "privacy" / "retention.md"
    assert published.read_text() == printed, "run freshet retention > docs/privacy/retention.md"
    assert printed == page(DEFAULTS, "the defaults") + "\n"


def test_unreadable_settings_are_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["retention", "--settings", str(tmp_path / "none.toml")]) == 2
    assert "none.toml cannot be read" in capsys.readouterr().err
