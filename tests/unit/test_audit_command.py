"""The audit command: heads are saved completely, and a failed check is not a verdict."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka.errors import KafkaError

from freshet.cli.main import run
from jobs.settings import Settings
from privacy import audit_verification
from privacy.retention import DEFAULTS
from privacy.rules.audit_proof import Line
from schemas.audit import SignedHead
from schemas.errors import SettingsError

SETTINGS_TEXT = """
kafka.bootstrap_servers = "broker:9092"
redis.url = "redis://cache:6379/0"
model.directory = "/models/one"
"""


def a_head(seq: int) -> bytes:
    return msgspec.json.encode(SignedHead(0, 5, seq, "ab" * 32, 1, "cd" * 8, "ef" * 64))


ONE, TWO, THREE = map(a_head, range(3))
TOPIC_BEFORE = "9d1e0b6c-5a0f-4f1e-8a57-3c2f6f0f3f11"
PUBLIC_KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents of every topic."""
    heads: list[bytes] = []
    monkeypatch.setattr(audit_verification, "trail_id", lambda kafka: "a topic")
    monkeypatch.setattr(audit_verification, "submitted_with", lambda settings: "a topic")
    monkeypatch.setattr(
        audit_verification,
        "_lines",
        lambda settings, name, isolation_level="": (Line(0, n, raw) for n, raw in enumerate(list(heads))),
    )
    return heads


@pytest.fixture
def settings_path(tmp_path: Path) -> Path:
    path = tmp_path / "freshet.toml"
    path.write_text(SETTINGS_TEXT)
    return path


def test_heads_are_saved_once_and_kept_after_retention(topic: list[bytes], tmp_path: Path) -> None:
    out = tmp_path / "heads.jsonl"
    topic += [ONE, TWO]
    assert audit_verification.save_heads(DEFAULTS, out) == 2
    topic[:] = [TWO, THREE]
    assert audit_verification.save_heads(DEFAULTS, out) == 1
    assert out.read_bytes() == b"".join(head + b"\n" for head in (ONE, TWO, THREE))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_interrupted_saving_leaves_the_file_unchanged(
    topic: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "heads.jsonl"
    out.write_bytes(ONE + b"\n")
    topic += [TWO]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit_verification.os, "fsync", full)
    with pytest.raises(SettingsError, match="cannot be written: No space left"):
        audit_verification.save_heads(DEFAULTS, out)
    assert out.read_bytes() == ONE + b"\n"


@pytest.mark.parametrize("error", [KafkaError("gone"), OSError("gone"), SettingsError("gone")])
def test_unverifiable_is_distinguished_from_findings(
    error: Exception, settings_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lines(settings: Settings, name: str) -> Iterator[Any]:
        raise error

    monkeypatch.setattr(audit_verification, "trail_id", lambda kafka: "a topic")
    monkeypatch.setattr(audit_verification, "_lines", lines)
    assert run(["audit", "verify", "--settings", str(settings_path), "--public-key", "ab" * 32]) == 2
    assert "freshet: not done: " in capsys.readouterr().err


def test_intact_and_damaged_trails_have_different_exit_codes(
    topic: list[bytes], settings_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit_verification, "PAUSE_S", 0)
    command = ["audit", "verify", "--settings", str(settings_path), "--public-key", PUBLIC_KEY]
    assert run(command) == 0
    topic += [b"{}"]
    assert run(command) == 1
    assert "partition 0 offset 0 is not a record of the trail" in capsys.readouterr().out


def test_recreated_audit_topic_is_found(
    topic: list[bytes], settings_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Although the topic is empty."""
    monkeypatch.setattr(audit_verification, "submitted_with", lambda settings: TOPIC_BEFORE)
    command = ["audit", "verify", "--settings", str(settings_path), "--public-key", "ab" * 32]
    assert run(command) == 1
    assert "was deleted and created again" in capsys.readouterr().out
    assert run([*command, "--trail", TOPIC_BEFORE]) == 0


@pytest.mark.parametrize("trail", ["nonsense", "", TOPIC_BEFORE[:-1], TOPIC_BEFORE.upper(), "an audit"])
def test_invalid_trail_id_is_a_usage_error(
    topic: list[bytes], settings_path: Path, trail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", "verify", "--settings", str(settings_path), "--public-key", PUBLIC_KEY, "--trail"]
    assert run([*command, trail]) == 64
    assert "Kafka's id of a topic is" in capsys.readouterr().err
    for known in (TOPIC_BEFORE, "freshet.audit"):  # brokers before 2.8 return no ids: the name is used instead
        assert run([*command, known]) == 0


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_empty_heads_file_proves_nothing(
    topic: list[bytes], settings_path: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = tmp_path / "heads.jsonl"
    heads.write_bytes(content)
    command = ["audit", "verify", "--settings", str(settings_path), "--public-key", PUBLIC_KEY]
    assert run([*command, "--heads", str(heads)]) == 2
    assert "contains no heads: was it truncated?" in capsys.readouterr().err


@pytest.mark.parametrize("broken", [ONE[:40] + b"\n", ONE + TWO, b"\n" + ONE + b"\n", b"\xff\n"])
def test_heads_are_not_added_to_a_corrupt_file(
    topic: list[bytes], settings_path: Path, tmp_path: Path, broken: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "heads.jsonl"
    out.write_bytes(ONE + b"\n" + broken)
    topic += [THREE]
    before = sorted(tmp_path.iterdir())
    assert run(["audit", "save-heads", "--settings", str(settings_path), "--out", str(out)]) == 2
    assert "line 2 is not a head" in capsys.readouterr().err
    assert out.read_bytes() == ONE + b"\n" + broken and sorted(tmp_path.iterdir()) == before


def test_invalid_heads_are_not_saved(topic: list[bytes], tmp_path: Path) -> None:
    out = tmp_path / "heads.jsonl"
    out.touch()
    topic += [b"junk", ONE]
    assert [audit_verification.save_heads(DEFAULTS, out) for _ in range(2)] == [1, 0]
    assert out.read_bytes() == ONE + b"\n"
