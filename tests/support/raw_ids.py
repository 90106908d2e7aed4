"""Searches for raw ids where they must not be: snapshots, logs, Redis, all but the raw topics, Flink's REST."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from adapters.flink.rest import FlinkRest
from schemas import topics
from schemas.pseudonyms import KeyRing
from tests.support.live import Live

WITHOUT_IDS = (topics.DEAD_LETTERS, topics.EVENTS, topics.RECEIPTS, topics.AUDIT, topics.AUDIT_HEADS)
NAMES_AT_ONCE = 40
"""Metrics are asked for by name in the address, which has a longest length."""


def places_of(live: Live, pattern: re.Pattern[bytes]) -> list[str]:
    """Every place where `pattern` is found. Take a checkpoint first; a job that has ended has no metrics."""
    folder = live.stack.directory
    files = [path for part in ("flink", "log", "redis", "tmp") for path in files_below(folder / part)]
    assert any("chk-" in str(path) for path in files)
    found = [str(path.relative_to(folder)) for path in files if pattern.search(bytes_of(path))]
    for topic in WITHOUT_IDS:
        found += [topic for record in live.records(topic) if pattern.search(record.value)][:1]
    keys = list(live.redis.scan_iter(count=10_000))
    values = live.redis.pipeline(transaction=False)
    for key in keys:
        values.dump(key)
    texts = [key + (value or b"") for key, value in zip(keys, values.execute(), strict=True)]
    found += ["redis" for text in texts if pattern.search(text)]
    return found + [path for path, text in told_by_rest(live.stack.rest, live.job_id) if pattern.search(text)]


def files_below(folder: Path) -> Iterator[Path]:
    """All files; those of a checkpoint that is being replaced may be missing."""
    for parent, _, names in os.walk(folder):  # passes over a folder that is gone, where Path.rglob raises
        yield from (Path(parent) / name for name in names)


def bytes_of(path: Path) -> bytes:
    """The content of a file; empty if its checkpoint was replaced in the meantime."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def told_by_rest(rest: FlinkRest, job: str) -> Iterator[tuple[str, bytes]]:
    """(path, text) of what Flink's REST API shows of a job: description, settings, failures, all metrics."""
    for path in (f"/jobs/{job}", f"/jobs/{job}/config", f"/jobs/{job}/plan", f"/jobs/{job}/exceptions"):
        yield path, json.dumps(rest.get(path)).encode()
    vertices = [f"/jobs/{job}/vertices/{vertex['id']}" for vertex in rest.get(f"/jobs/{job}")["vertices"]]
    managers = [f"/taskmanagers/{manager['id']}" for manager in rest.task_managers()]
    for path in ("/jobmanager", f"/jobs/{job}", *vertices, *managers):
        names = rest.metric_names(path)
        yield f"{path}/metrics", "\n".join(names).encode()
        for start in range(0, len(names), NAMES_AT_ONCE):
            asked = rest.metrics(path, names[start : start + NAMES_AT_ONCE])
            yield f"{path}/metrics", json.dumps(asked).encode()


def keys_of(ring: KeyRing) -> re.Pattern[bytes]:
    """The keys of `ring`, in hexadecimal and as bytes."""
    keys = [ring.routing, *(key for kids in ring.keys.values() for key in kids.values())]
    return re.compile(b"|".join(re.escape(form) for key in keys for form in (key.encode(), bytes.fromhex(key))))
