"""Flink's library directory: the jars of the pip package, its Python jar and the Kafka connector."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from functools import cache
from pathlib import Path

import pyflink

from deploy.local.errors import JarError
from deploy.local.paths import CACHE, JARS

FLINK_HOME = Path(pyflink.__file__).parent


@cache
def directory() -> Path:
    """A directory of links shared by all stacks of this checkout; created if it does not exist.

    The Python jar belongs here and not into the job: a job that brings its own copy loads pemja's library into a class
    loader of its own, and the second such job in the same TaskManager fails.
    """
    connector = list((JARS / "flink").glob("*.jar"))
    if not connector:
        raise JarError("the Kafka connector is not installed yet; run `make setup`")
    jars = [*(FLINK_HOME / "lib").glob("*.jar"), *(FLINK_HOME / "opt").glob("flink-python*.jar"), *connector]
    names = json.dumps(sorted(str(jar) for jar in jars))
    links = CACHE / f"flink-lib-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
    if not links.exists():
        _link(jars, links)
    return links


def classpath() -> list[Path]:
    """The jars in the order used by Flink's own scripts: flink-dist last, so the connectors come first."""
    return sorted(directory().glob("*.jar"), key=lambda jar: (jar.name.startswith("flink-dist"), jar.name))


def _link(jars: list[Path], links: Path) -> None:
    draft = links.with_name(f".{links.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for jar in jars:
        (draft / jar.name).symlink_to(jar)
    draft.rename(links)
