"""Fetches the Java dependencies with Maven and rejects any file that differs from the pinned one.

Run by `make setup`. `--lock` writes SHA256SUMS from what Maven fetched, after a version change in pom.xml.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.local.errors import JarError, StackError
from deploy.local.files import write_atomically
from deploy.local.java import ENVIRONMENT
from deploy.local.paths import JARS, POM, SUMS


def fetch(directory: Path) -> None:
    """Copy all jars listed in pom.xml to `directory`, from Maven's own cache if it has them."""
    run_maven(["-q", "-f", str(POM), "package", f"-Djars.directory={directory}"])


def run_maven(words: list[str]) -> str:
    """The output of Maven, run with `words`. Raises JarError with its last lines if it fails."""
    maven = shutil.which("mvn")
    if maven is None:
        raise JarError("mvn is not on PATH; install Maven 3.8 or newer")
    command = [maven, "-B", *words]
    done = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, check=False, capture_output=True, encoding="utf-8"
    )
    if done.returncode != 0:
        raise JarError(f"mvn failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return done.stdout


def install(directory: Path, sums: Path) -> int:
    """Put exactly the pinned jars into `directory`; returns their number. Other jars are never copied there."""
    with contextlib.suppress(JarError):
        return verify(directory, sums)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".jars-") as fresh:
        fetch(Path(fresh))
        count = verify(Path(fresh), sums)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(fresh, directory)
    return count


def lock(sums: Path) -> int:
    """Write the checksums of what Maven fetches now; returns the number of jars."""
    with tempfile.TemporaryDirectory() as fresh:
        fetch(Path(fresh))
        lines = [f"{digest}  {name}\n" for name, digest in checksums(Path(fresh)).items()]
    write_atomically(sums, "".join(lines))
    return len(lines)


def checksums(directory: Path) -> dict[str, str]:
    """Relative path → sha256 of every jar below directory."""
    jars = sorted(directory.rglob("*.jar"))
    return {str(jar.relative_to(directory)): hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}


def verify(directory: Path, sums: Path) -> int:
    """Raise JarError naming the first jar that differs, is missing or is unexpected; returns the number of jars."""
    return compare(checksums(directory), read_sums(sums), sums)


def compare(found: dict[str, str], pinned: dict[str, str], sums: Path) -> int:
    """Raise JarError naming the first jar that differs from `sums`, is missing or is unexpected."""
    for name in sorted(pinned.keys() | found.keys()):
        if name not in found:
            raise JarError(f"{name} is missing, and {sums.name} pins it; run `make setup`")
        if name not in pinned:
            raise JarError(f"{name} is not in {sums.name}: refused (a change of version needs `make jars-lock`)")
        if found[name] != pinned[name]:
            raise JarError(f"{name} has sha256 {found[name]}, but {sums.name} pins {pinned[name]}: refused")
    return len(pinned)


def read_sums(sums: Path) -> dict[str, str]:
    """Name → sha256, as pinned in `sums`."""
    rows = (line.split(maxsplit=1) for line in sums.read_text().splitlines() if line.strip())
    return {name.strip(): digest for digest, name in rows}


def main(arguments: list[str] | None = None) -> int:
    """Fetch, then verify (or lock)."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.fetch_jars", description=__doc__)
    parser.add_argument("--lock", action="store_true", help="write SHA256SUMS instead of checking against it")
    options = parser.parse_args(arguments)
    JARS.parent.mkdir(parents=True, exist_ok=True)
    print("jars: fetching what is missing, by Maven ...", flush=True)
    try:
        if options.lock:
            print(f"jars: {lock(SUMS)} files pinned in {SUMS.name}")
        print(f"jars: {install(JARS, SUMS)} files have the pinned sha256", flush=True)
    except StackError as error:
        print(f"jars: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
