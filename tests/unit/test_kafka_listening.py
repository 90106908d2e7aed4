"""A command does not wait for a Kafka that refuses connections."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.settings import KafkaSettings
from adapters.secrets.key_rings import new_key_ring, write_key_ring
from adapters.secrets.signing_keys import write_signing_key
from freshet.cli.main import run
from jobs.checks import check_topics
from jobs.settings import load_settings
from models.random_model import random_model
from schemas.errors import SettingsError

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


def test_silently_dropping_servers_are_left_to_the_client(silent: socket.socket) -> None:
    port = silent.getsockname()[1]
    for servers in (f"127.0.0.1:1, 127.0.0.1:{port}", f"[::1]:1,127.0.0.1:{port}"):
        require_reachable_broker(KafkaSettings(servers))
    with pytest.raises(SettingsError, match="refuses"):
        require_reachable_broker(KafkaSettings("127.0.0.1:1, 127.0.0.1:1"))
