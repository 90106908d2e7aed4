"""The settings file of the local stack: written anew at each start."""

from pathlib import Path
from typing import Any

import pytest

from deploy.local import product
from deploy.local.stack import LocalStack


class Submitted(Exception):  # noqa: N818 - the end of what is tested here
    pass


def start(stack: LocalStack, monkeypatch: pytest.MonkeyPatch, more: str = "") -> list[str]:
    def submitted(*_: Any) -> str:
        raise Submitted

    said: list[str] = []
    monkeypatch.setattr(product, "submit", submitted)
    monkeypatch.setattr(product, "create_local_topics", lambda kafka: None)
    with pytest.raises(Submitted):
        product.start(stack, report=said.append, more_settings=more)
    return said


def test_settings_that_somebody_changed_are_kept_beside_those_of_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = LocalStack(tmp_path)
    written = tmp_path / "freshet.toml"
    assert start(stack, monkeypatch) == ["submitting the job"]
    assert start(stack, monkeypatch) == ["submitting the job"], "the same again"
    changed = written.read_text() + "\n[explore]\nslots = 2\n"
    written.write_text(changed)
    [said, _] = start(stack, monkeypatch)
    assert "what it was is in freshet.toml.before" in said
    assert (tmp_path / "freshet.toml.before").read_text() == changed
    assert "explore" not in written.read_text()


def test_tables_of_ones_own_are_added_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = LocalStack(tmp_path)
    start(stack, monkeypatch, "[explore]\nslots = 2\n")
    assert (tmp_path / "freshet.toml").read_text().endswith("[explore]\nslots = 2\n")
    with pytest.raises(Exception, match="slotz"):
        product.start(stack, more_settings="[explore]\nslotz = 2\n")
