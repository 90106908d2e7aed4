"""Measures what a checkpoint costs the thread of a task, with the users of one bucket on the heap and in RocksDB.

    freshet bench state    # some minutes; writes the section "State" of RESULTS.md

Between two checkpoints, 10,000 users change, chosen by chance: 2,000 a second, each of another user, which is more than
a job of this size sees. The heap copies its index at the first write after a checkpoint began; RocksDB writes what
changed to a file before the checkpoint begins. Both stop the task for that time. Flink's own code is run, without a
cluster (`bench/java/StateBackends.java`).
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.figures import machine, median
from bench.results import table, write_section
from deploy.flink_profiles import ROCKSDB_CONF, Demand, State, size_of
from deploy.local import flink_libraries
from deploy.local.errors import StackError
from deploy.local.flink_config import read_flat

SOURCE: Final = Path(__file__).parent / "java" / "StateBackends.java"
MAIN: Final = "org.apache.flink.state.rocksdb.StateBackends"
USERS: Final = (25_000, 100_000, 250_000, 1_000_000)
USER_BYTES: Final = 1_700
CHANGED: Final = 10_000
CHECKPOINTS: Final = 8
SETTLED: Final = 3
"""Checkpoints that do not count: the first one writes everything, and Java has not yet compiled what it runs."""
OPENS: Final = ("--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED")
HEAP_MB: Final = {State.HEAP: 6_000, State.ROCKSDB: 1_000}


class Cost(NamedTuple):
    """Medians over the checkpoints: the pause in ms, and its longest; MB of a checkpoint; µs to change a user.

    `cpu_us` counts the threads of RocksDB, too.
    """

    pause_ms: float
    longest_ms: float
    mb: float
    us: float
    cpu_us: float


def run(command: str, say: Callable[[str], None]) -> str:
    """Measure, and write the section with `command`; returns the table."""
    head = ["users of the bucket", "state", "pause", "longest", "checkpoint", "µs a change", "of CPU"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        classes = compiled(Path(folder))
        for users in USERS:
            for state in State:
                say(f"{users:,} users, {state}")
                cost = measure(classes, Path(folder), users, state)
                rows.append([f"{users:,}", str(state), *_cells(cost)])
    measured = table(head, rows)
    title = f"## State\n\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {machine()}; `{command}`."
    text = (
        f"Users of {USER_BYTES:,} bytes; {CHANGED:,} of them change between two checkpoints. Pause: the synchronous "
        "part of a checkpoint and the first write after it. Medians, and the longest pause, of "
        f"{CHECKPOINTS - SETTLED} checkpoints. A change is a read and a write."
    )
    write_section("state", f"{title}\n\n{text}\n\n{measured}")
    return measured


def _cells(cost: Cost) -> list[str]:
    return [
        f"{cost.pause_ms:,.0f} ms",
        f"{cost.longest_ms:,.0f} ms",
        f"{cost.mb:,.0f} MB",
        f"{cost.us:.0f}",
        f"{cost.cpu_us:.0f}",
    ]


def compiled(folder: Path) -> str:
    """Compile the Java part into `folder`; returns the class path to run it. Raises :class:`StackError`."""
    compiler = shutil.which("javac")
    if compiler is None:
        raise StackError("javac is not on PATH: install a JDK 17")
    path = ":".join(map(str, [folder, *flink_libraries.classpath()]))
    subprocess.run([compiler, "-nowarn", "-Xlint:-options", "-cp", path, "-d", str(folder), str(SOURCE)], check=True)
    return path


def measure(classes: str, folder: Path, users: int, state: State, settings: dict[str, str] | None = None) -> Cost:
    """Measure one backend; `settings` replace those of the profile."""
    chosen = {**read_flat(ROCKSDB_CONF.read_text(encoding="utf-8")), **(settings or {})}
    database = Path(tempfile.mkdtemp(dir=folder))
    words = [str(users), str(USER_BYTES), str(CHANGED), str(CHECKPOINTS)]
    words += [str(size_of(Demand(State.ROCKSDB, users)).managed_mb), str(database)]
    words += [f"{name}={value}" for name, value in chosen.items()]
    options = [f"-Xmx{HEAP_MB[state]}m", "-XX:+UseParallelGC", f"-Djava.io.tmpdir={folder}", "-Dlog4j2.level=OFF"]
    done = subprocess.run(
        [_java(), *OPENS, *options, "-cp", classes, MAIN, str(state), *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(database, ignore_errors=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return _cost(found[SETTLED:])


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise StackError("java is not on PATH: install Java 17")
    return java


def _cost(found: list[dict[str, Any]]) -> Cost:
    pauses = [each["synchronous_ms"] + each["first_write_ms"] for each in found]
    sizes, us, cpu_us = ([each[name] for each in found] for name in ("bytes", "us", "cpu_us"))
    return Cost(median(pauses), max(pauses), median(sizes) / 1e6, median(us), median(cpu_us))
