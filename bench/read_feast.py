"""Feast's Python feature server on the same Redis, with a list as a feature, for comparison with a feature store.

It is installed in an environment of its own in `.local/feast` when it is first measured.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from adapters.waiting import until
from bench.read_nginx import Peer
from bench.read_testbed import ReadTestbed, user_name
from deploy.local.paths import LOCAL
from deploy.local.ports import LOOPBACK, free_port, is_listening
from deploy.local.processes import ProcessTable
from schemas.wire.feast_layout import FEAST_VERSION

ENVIRONMENT: Final = LOCAL / "feast"
USERS: Final = 1_000
START_TIMEOUT_S: Final = 120
STORE: Final = """project: lists
provider: local
registry: "{folder}/registry.db"
online_store: {{type: redis, connection_string: "{host}:{port},db=1"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
telemetry: false
"""
FILL: Final = """
import sys, pandas as pd
from datetime import datetime, timedelta, timezone
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import String
folder, listed, users = sys.argv[1], sys.argv[2], int(sys.argv[3])
now = datetime.now(timezone.utc)
frame = pd.DataFrame({"user_id": [f"user-{n:05d}" for n in range(users)], "list": listed, "at": now})
frame.to_parquet(folder + "/lists.parquet")
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
source = FileSource(path=folder + "/lists.parquet", timestamp_field="at")
view = FeatureView(name="lists", entities=[user], ttl=timedelta(days=1), schema=[Field(name="list", dtype=String)],
                   source=source, online=True)
store = FeatureStore(folder)
store.apply([user, view])
store.write_to_online_store("lists", frame)
"""


@contextmanager
def running(testbed: ReadTestbed, wanted: bool, say: Callable[[str], None]) -> Iterator[Peer | str]:
    """The server, or the reason why it does not run."""
    python = ENVIRONMENT / "bin" / "python"
    folder, table = testbed.directory / "feast", ProcessTable(testbed.directory)
    records = []
    try:
        why = "it was not requested" if not wanted else installed(say) or _filled(python, folder, testbed, say)
        if why:
            yield why
            return
        port = free_port()
        command = [str(python.with_name("feast")), "-c", str(folder), "serve", "-h", LOOPBACK, "-p", str(port)]
        # Otherwise its worker ends after a thousand requests and closes its connections.
        command += ["-w", "1", "--max-requests", "0", "--no-access-log"]
        records.append(table.start("feast", command, {"FEAST_USAGE": "False"}))
        until(lambda: is_listening(port), "Feast", START_TIMEOUT_S)
        yield Peer(records[0].pid, port, [_request(port, number) for number in range(USERS)])
    finally:
        table.end(records, 5)


def installed(say: Callable[[str], None]) -> str | None:
    """Install it if necessary; returns the reason for a failure, or None."""
    python = ENVIRONMENT / "bin" / "python"
    if (ENVIRONMENT / "ready").exists():
        return None
    say(f"installing Feast {FEAST_VERSION} below .local/feast (once, some minutes)")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", f"feast[redis]=={FEAST_VERSION}"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"Feast could not be installed ({_last_line(done.stderr)})"
    (ENVIRONMENT / "ready").touch()
    return None


def _filled(python: Path, folder: Path, testbed: ReadTestbed, say: Callable[[str], None]) -> str | None:
    say(f"{USERS} lists as a feature of Feast")
    folder.mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(STORE.format(folder=folder, host=LOOPBACK, port=testbed.store.port))
    command = [str(python), "-c", FILL, str(folder), testbed.listed.decode(), str(USERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"Feast could not be filled ({_last_line(done.stderr)})" if done.returncode else None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1][:200]


def _request(port: int, user: int) -> bytes:
    payload = json.dumps({"features": ["lists:list"], "entities": {"user_id": [user_name(user)]}})
    return (
        f"POST /get-online-features HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n{payload}"
    ).encode()
