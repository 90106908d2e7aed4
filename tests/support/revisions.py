"""Packages of earlier revisions of this repository, for upgrades from them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.package import ROOT

FROM = "FRESHET_UPGRADE_FROM"
"""The variable with the revision that an upgrade begins at; `make upgrade-test FROM=v0.1.0` sets it."""


def former_revision() -> str:
    """The revision in :data:`FROM`; else the last tag, or the commit of the newest golden savepoint of a release."""
    if given := os.environ.get(FROM):
        return given
    tag = _git("describe", "--tags", "--abbrev=0", check=False)
    return tag or _git("log", "-1", "--format=%H", "--", "tests/golden/savepoints/release-*.xz")


def package_of(revision: str, folder: Path) -> Path:
    """The package of the code at `revision`, built by that code in a worktree that is removed again."""
    tree, package = folder / "tree", folder / "former.zip"
    _git("worktree", "add", "--detach", str(tree), revision)
    try:
        (tree / ".local").mkdir(exist_ok=True)
        if (jars := ROOT / ".local" / "jars").exists():
            (tree / ".local" / "jars").symlink_to(jars)
        for module in (["-m", "deploy.local.build_operators"], ["-c", _BUILD, str(package)]):
            done = subprocess.run([sys.executable, *module], cwd=tree, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"revision {revision}: {done.stdout}{done.stderr}"
    finally:
        shutil.rmtree(tree)
        _git("worktree", "prune")
    return package


_BUILD = "import sys; from pathlib import Path; from deploy.package import build; build(Path(sys.argv[1]))"


def _git(*words: str, check: bool = True) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()
