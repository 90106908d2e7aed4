"""The commands in the sections of the runbook to which alerts lead."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from deploy.local.paths import ROOT
from tests.support.monitoring import RULES

FINDINGS_ALLOWED = ("doctor", "audit")
"""Commands that may exit with 1 while something is wrong."""
_SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """The anchor of a heading, as the documentation makes it."""
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def sections(page: Path) -> dict[str, str]:
    """The text of each section of a page, by its anchor."""
    return {anchor(heading): text for heading, text in _SECTION.findall(page.read_text())}


def alerts() -> list[dict[str, object]]:
    """The rules of the alerts."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def commands_of(section: str) -> list[str]:
    """The lines of its blocks of commands."""
    return [line for block in _BLOCK.findall(section) for line in block.splitlines()]


def commands_of_alerts() -> set[str]:
    """All commands in sections that alerts lead to."""
    found: set[str] = set()
    for rule in alerts():
        page, _, name = str(rule["annotations"]["runbook"]).partition("#")  # type: ignore[index]
        found.update(commands_of(sections(ROOT / page)[name]))
    return found


def run_command(line: str, names: Mapping[str, str], folder: Path) -> None:
    """Run a documented line, with the addresses in `names` in place of those of the documentation."""
    for documented, real in names.items():
        line = line.replace(documented, real)
    words = shlex.split(line)
    is_curl = words[0] == "curl"
    command = words if is_curl else [sys.executable, "-m", *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    allowed = (0, 1) if words[1] in FINDINGS_ALLOWED else (0,)
    assert done.returncode in allowed, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    if is_curl and "/api/v1/query" in line:
        answer = json.loads(done.stdout)
        assert answer["status"] == "success", f"{line}: {answer}"
