"""Rules for releases and commits: a State: line, and hooks that call make."""

import re
from pathlib import Path

import pytest
import yaml

import freshet

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
VERSION = re.compile(r"Unreleased|\d+\.\d+\.\d+")


def wrong_in(changelog: str) -> list[str]:
    """The problems in the sections of a changelog."""
    _, *parts = SECTION.split(changelog)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    found = [f"{name}: no version" for name in sections if not VERSION.fullmatch(name)]
    return found + [f"{name}: no line State:" for name, text in sections.items() if "\nState: " not in text]


def unknown_hooks(config: str, makefile: str) -> list[str]:
    """Hooks that call anything but a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    hooks = [hook for repo in yaml.safe_load(config)["repos"] for hook in repo["hooks"]]
    assert hooks
    calls = [(hook, re.fullmatch(r"make ([a-z-]+)(?: [A-Z]+=\S+)*", hook["entry"])) for hook in hooks]
    return [hook["id"] for hook, call in calls if call is None or call[1] not in targets]


def test_each_release_says_which_state_it_restores() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert wrong_in(text) == []
    assert f"## {freshet.__version__}\n" in text


def test_release_without_version_or_state_line_is_found() -> None:
    assert wrong_in("# C\n## Next\n\nState: as before.\n## 0.2.0\n- State: hidden in an entry\n") == [
        "Next: no version",
        "0.2.0: no line State:",
    ]


def test_hooks_call_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert unknown_hooks((ROOT / ".pre-commit-config.yaml").read_text(), makefile) == []


@pytest.mark.parametrize("entry", ["ruff check", "make no-such-target", "make check && git push"])
def test_a_hook_that_calls_something_else_is_found(entry: str) -> None:
    config = yaml.safe_dump({"repos": [{"repo": "local", "hooks": [{"id": "x", "entry": entry}]}]})
    assert unknown_hooks(config, (ROOT / "Makefile").read_text()) == ["x"]
