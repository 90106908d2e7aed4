"""The topics command, as a data engineer uses it."""

from typing import Any

import pytest

from freshet.cli.main import run
from jobs import topic_creation as command
from schemas.topics import TOPICS
from tests.support.vocabulary import DAY


class Admin:
    """A broker that has `known` topics."""

    known: frozenset[str] = frozenset()
    created: list[Any] = []  # noqa: RUF012

    def __init__(self, **_: Any) -> None:
        type(self).created = []

    def list_topics(self) -> list[str]:
        """Names."""
        return list(self.known)

    def create_topics(self, new: list[Any]) -> None:
        """Record them."""
        type(self).created += new

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def settings(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "require_reachable_broker", lambda kafka: None)
    monkeypatch.setattr(command, "open_admin", lambda kafka: Admin())
    path = tmp_path / "freshet.toml"
    path.write_text('kafka.bootstrap_servers = "b:9092"\nredis.url = "redis://c"\nmodel.directory = "/m"\n')
    return str(path)


def test_all_topics_are_created_with_their_retention(settings: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", "--settings", settings, "--partitions", "12", "--replicas", "3"]) == 0
    by_name = {topic.name: topic for topic in Admin.created}
    assert set(by_name) == {f"freshet.{topic.name}" for topic in TOPICS}
    assert by_name["freshet.interactions"].topic_configs["retention.ms"] == str(3 * DAY)
    assert (by_name["freshet.interactions"].num_partitions, by_name["freshet.control"].num_partitions) == (12, 1)
    assert "created freshet.audit" in capsys.readouterr().out


def test_existing_topics_are_untouched(
    settings: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Admin, "known", frozenset(f"freshet.{topic.name}" for topic in TOPICS))
    assert run(["topics", "--settings", settings]) == 0
    assert (Admin.created, capsys.readouterr().out.strip()) == ([], "all topics exist")
