"""A fake of Flink's client, for unit tests of what is passed to it."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import submission

FakeClient = Callable[[str], Path]
"""Sets what the client does, as a shell script; returns the file to which it writes its arguments."""


def fake_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """A client in FLINK_HOME that records its arguments and then behaves as configured; nothing is kept elsewhere."""

    def make(script: str) -> Path:
        given = tmp_path / "given"
        flink = tmp_path / "home" / "bin" / "flink"
        flink.parent.mkdir(parents=True, exist_ok=True)
        flink.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {given}\n{script}\n')
        flink.chmod(0o755)
        return given

    monkeypatch.setenv("FLINK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(submission, "LOCAL", tmp_path / "local")
    monkeypatch.setattr(submission, "LOG", tmp_path / "local" / "submit.log")
    return make
