"""A command does not wait for a Kafka that refuses connections."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kafka import settings
from adapters.kafka.opening import open_admin, open_producer
from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.reading import open_consumer
from adapters.kafka.settings import KafkaSettings
from adapters.secrets.key_rings import new_key_ring, write_key_ring
from adapters.secrets.signing_keys import write_signing_key
from freshet.cli.main import run
from jobs.checks import check_topics
from jobs.settings import load_settings
from jobs.topic_creation import create_topics
from models.random_model import random_model
from schemas.errors import KafkaUnreachable, SettingsError

COMMANDS = (
    "access --user ada --role dpo --purpose request",
    "audit save-heads --out {folder}/heads",
    "audit verify",
    "consent record --user ada --level full",
    "consent withdraw --user ada",
    "erase purge-consents",
    "erase rewrite-events",
    "erase user --user ada",
    "erase verify --user ada --savepoint {folder}",
    "export history",
    "export rewrite {folder}/x",
    "export write --purpose train --out {folder}/x",
    "rebuild",
    "report --from 2026-01-01 --to 2026-02-01 --out {folder}/report",
    "rotate end",
    "rotate relink",
    "rotate show",
    "rotate start",
    "submit",
    "topics",
    "topics --alter",
    "upgrade --flink http://127.0.0.1:1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a deployment with correct files and servers that refuse connections."""
    folder = tmp_path_factory.mktemp("away")
    write_key_ring(new_key_ring(), folder / "ring.json")
    write_signing_key(folder / "signing-key")
    random_model(folder / "model", 30)
    (folder / "freshet.toml").write_text(
        f'kafka.bootstrap_servers = "127.0.0.1:1"\nredis.url = "redis://127.0.0.1:1/0"\n'
        f'model.directory = "{folder / "model"}"\nprivacy.key_ring = "{folder / "ring.json"}"\n'
        f'audit.signing_key = "{folder / "signing-key"}"\n'
    )
    return folder


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_fail_at_once_if_kafka_refuses_connections(
    folder: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kafka's own client would try for five seconds, and not report the refusal."""
    assert run([*line.format(folder=folder).split(), "--settings", str(folder / "freshet.toml")]) == 2
    told = capsys.readouterr().err
    assert "Kafka at 127.0.0.1:1 refuses connections" in told and "kafka.bootstrap_servers" in told


def test_submission_fails_at_once_too(folder: Path) -> None:
    with pytest.raises(SettingsError, match="refuses connections"):
        check_topics(load_settings(folder / "freshet.toml"))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


@pytest.mark.parametrize("line", ["topics", "topics --alter", "consent withdraw --user ada", "audit verify", "submit"])
def test_server_that_cannot_be_resolved_is_named_and_no_right_is_blamed(
    folder: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "freshet.toml"
    text = (folder / "freshet.toml").read_text()
    settings.write_text(text.replace('127.0.0.1:1"', 'nowhere.invalid:9092"', 1))
    assert run([*line.split(), "--settings", str(settings)]) == 2
    told = capsys.readouterr().err
    assert "Kafka at nowhere.invalid:9092 cannot be resolved" in told and "rights" not in told


def test_opening_a_client_names_the_silent_server(silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FIRST_REPLY_TIMEOUT_MS", 300)
    kafka = KafkaSettings(f"127.0.0.1:{silent.getsockname()[1]}")
    for opened in (open_admin, open_producer, open_consumer, create_of):
        with pytest.raises(KafkaUnreachable, match=f"Kafka at {kafka.bootstrap_servers} does not answer"):
            opened(kafka)


def create_of(kafka: KafkaSettings) -> None:
    create_topics(kafka, 1, 1)


def test_one_of_several_servers_is_enough(silent: socket.socket) -> None:
    port = silent.getsockname()[1]
    for servers in (f"127.0.0.1:1, 127.0.0.1:{port}", f"[::1]:1,127.0.0.1:{port}"):
        require_reachable_broker(KafkaSettings(servers))
    with pytest.raises(SettingsError, match="refuses"):
        require_reachable_broker(KafkaSettings("127.0.0.1:1, 127.0.0.1:1"))
