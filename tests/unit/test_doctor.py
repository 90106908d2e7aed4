"""What the doctor reports about incomplete deployments, and that it reports it quickly."""

import doctest
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.secrets.key_rings import new_key_ring, write_key_ring
from adapters.secrets.signing_keys import write_signing_key
from freshet.cli.main import run
from jobs import doctor
from jobs.doctor import REQUIREMENTS, describe_clock_offset, run_checks
from models.random_model import random_model
from schemas.errors import SettingsError


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings of a deployment with correct files and servers that refuse connections."""
    write_key_ring(new_key_ring(), tmp_path / "ring.json")
    write_signing_key(tmp_path / "signing-key")
    random_model(tmp_path / "model", 30)
    path = tmp_path / "freshet.toml"
    path.write_text(
        f'kafka.bootstrap_servers = "127.0.0.1:1"\nredis.url = "redis://127.0.0.1:1/0"\n'
        f'model.directory = "{tmp_path / "model"}"\nprivacy.key_ring = "{tmp_path / "ring.json"}"\n'
        f'audit.signing_key = "{tmp_path / "signing-key"}"\n'
    )
    return path


def verdicts(path: Path, flink: str | None = None) -> dict[str, tuple[str, str]]:
    return {each.what: (each.verdict, each.text) for each in run_checks(path, flink)}


def test_refusing_servers_are_named_quickly_and_dependent_checks_skipped(settings: Path, capsys) -> None:
    begun = time.monotonic()
    assert run(["doctor", "--settings", str(settings), "--json"]) == 1
    assert time.monotonic() - begun < 15, "one wait for Kafka of five seconds, not one for each check"
    found = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert {what for what, each in found.items() if each["verdict"] == "mend"} == {"redis", "kafka"}
    assert "redis.url (or urls)" in found["redis"]["text"] and "kafka.bootstrap_servers" in found["kafka"]["text"]
    skipped = {what for what, each in found.items() if each["verdict"] == "skipped"}
    assert skipped == {"topics", "clock", "deployment", "flink"}


def test_files_are_checked_one_by_one(settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_check_redis", lambda settings: [])
    monkeypatch.setattr(doctor, "_check_kafka", lambda path, settings: [])
    assert {what: verdict for what, (verdict, _) in verdicts(settings).items() if verdict != "ok"} == {
        "flink": "skipped"
    }
    (tmp_path / "ring.json").chmod(0o644)
    (tmp_path / "signing-key").write_text("no key")
    with (tmp_path / "model" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    found = verdicts(settings)
    assert [what for what, (verdict, _) in found.items() if verdict == "mend"] == ["key ring", "signing key", "model"]
    assert f"chmod 600 {tmp_path / 'ring.json'}" in found["key ring"][1]
    assert "no key" not in found["signing key"][1]


def test_settings_that_cannot_be_read_are_a_finding(tmp_path: Path, capsys) -> None:
    assert run(["doctor", "--settings", str(tmp_path / "none.toml")]) == 1
    assert "none.toml cannot be read" in capsys.readouterr().out


def test_pins_are_read_from_the_requirements() -> None:
    pins = doctor.pinned(REQUIREMENTS)
    assert {"apache-flink", "msgspec", "kafka-python", "typer"} <= set(pins), "of included files, too"
    assert doctor.packages().startswith(f"{len(pins)} ")


def test_version_mismatches_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 13, 0))
    with pytest.raises(SettingsError, match=r"Python 3\.13"):
        doctor.python()
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="not Java 17"):
        doctor.java()
    java.unlink()
    with pytest.raises(SettingsError, match="java is not on PATH"):
        doctor.java()
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    with pytest.raises(SettingsError, match="apache-flink is not installed"):
        doctor.packages()


@pytest.mark.parametrize(("appended", "told"), [(0, "10000 ms ahead of"), (20_100, "10000 ms behind")])
def test_clock_skew_is_a_finding(appended: int, told: str) -> None:
    with pytest.raises(SettingsError, match=f"{told} the broker's: synchronise both"):
        describe_clock_offset(10_000, appended, 10_100)


ANSWERS: dict[str, Any] = {
    "/config": {"flink-version": "2.2.0"},
    "/overview": {"taskmanagers": 1, "slots-available": 1},
    "/jobs/overview": {"jobs": []},
}


@pytest.fixture
def flink() -> Iterator[str]:
    """The URL of a fake Flink."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(ANSWERS[self.path]).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_flink_version_task_managers_and_job_are_checked(
    settings: Path, flink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_check_redis", lambda settings: [])
    monkeypatch.setattr(doctor, "_check_kafka", lambda path, settings: [])
    found = verdicts(settings, flink)
    assert found["flink"] == ("ok", "2.2.0, 1 TaskManagers, 1 slots free")
    assert found["job"][0] == "note" and "`freshet submit`" in found["job"][1]
    monkeypatch.setitem(ANSWERS, "/overview", {"taskmanagers": 0, "slots-available": 0})
    assert verdicts(settings, flink)["flink"][0] == "mend"
    monkeypatch.setitem(ANSWERS, "/config", {"flink-version": "1.20.0"})
    assert "is 1.20.0, and apache-flink here is" in verdicts(settings, flink)["flink"][1]
    assert "job" not in verdicts(settings, flink)


def test_examples_are_true() -> None:
    result = doctest.testmod(doctor)
    assert result.attempted and not result.failed
