"""Builds the jar of the Java operators with Maven; fails if Maven used any jar that is not pinned.

Run by `make setup`. `--lock` writes SHA256SUMS from the jars that Maven used, after a version change in pom.xml.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.fetch_jars import compare, read_sums, run_maven
from deploy.local.files import write_atomically
from deploy.local.paths import ROOT
from jobs.operators_jar import NAME, SOURCES, sources_digest

POM = ROOT / "jobs" / "java" / "pom.xml"
SUMS = POM.with_name("SHA256SUMS")
JAR = ROOT / "jobs" / NAME
CLASSPATH = JAR.with_name("classpath")
"""Written by Maven: the jars with which the operators are compiled and tested."""


def build(sums: Path, lock: bool = False) -> int:
    """Build the jar; returns the number of jars used to compile and test it. Raises JarError, leaving no jar behind."""
    JAR.unlink(missing_ok=True)
    maven("package", "-DskipTests")
    used = jars_used()
    if lock:
        write_atomically(sums, "".join(f"{digest}  {name}\n" for name, digest in sorted(used.items())))
    try:
        compare(used, read_sums(sums), sums)
    except StackError:
        JAR.unlink()
        raise
    return len(used)


def maven(*words: str) -> str:
    """The output of Maven, run with `words` on the operators."""
    return run_maven(["-f", str(POM), f"-D{SOURCES}={sources_digest()}", *words])


def jars_used() -> dict[str, str]:
    """Name → sha256 of each jar used by Maven to compile and test."""
    jars = [Path(jar) for jar in CLASSPATH.read_text(encoding="utf-8").split(":")]
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}


def main(arguments: list[str] | None = None) -> int:
    """Build, then verify the jars used (or lock them)."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.build_operators", description=__doc__)
    parser.add_argument("--lock", action="store_true", help="write SHA256SUMS instead of checking against it")
    options = parser.parse_args(arguments)
    print("operators: building the jar from jobs/java, by Maven ...", flush=True)
    try:
        count = build(SUMS, options.lock)
    except StackError as error:
        print(f"operators: {error}", file=sys.stderr)
        return 1
    print(f"operators: built; the {count} jars it was built and is tested with have the pinned sha256", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
