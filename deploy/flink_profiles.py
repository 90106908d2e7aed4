"""Flink's configuration by profile and size: where state is kept, and how much memory a process is given.

`flink-conf.yaml` is the heap profile. `deploy/flink-rocksdb.yaml` has what the RocksDB profile changes. Sizes follow
from the numbers of users, items and TaskManagers; what a process needs was measured (docs/data-engineers/sizing.md).
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from deploy.local.flink_config import read_flat, render
from deploy.local.paths import FLINK_CONF

ROCKSDB_CONF: Final = Path(__file__).with_name("flink-rocksdb.yaml")
MB: Final = 2**20

PYTHON_MB: Final = 512
"""Interpreter, libraries, and what a job of a small shop keeps: 220 MB in thread mode, 470 MB in process mode."""
ITEM_KB: Final = 6
"""A learned item in the tables of the online model, as learner and as served: 4.8 KB with what they are copied from."""
HEAP_MB: Final = 384
"""Java's objects beside state: records and buffers of Kafka, Flink's own."""
HEAP_USER_BYTES: Final = 4_000
"""A user on the heap: 1.7 KB and Java's objects around it, and as much again for the collector to work in."""
CACHE_MB: Final = 256
"""RocksDB's write buffers and cache for a small shop."""
CACHE_USER_BYTES: Final = 256
"""What of RocksDB's memory a user adds: filter, index, and a share of the values in cache."""
MANAGED_MB: Final = 128
"""The heap backend uses none of it; the worker processes of process mode want a share of it to exist."""

_FRAMEWORK_HEAP_MB, _FRAMEWORK_DIRECT_MB, _NETWORK_MB, _METASPACE_MB = 128, 128, 128, 256
_OVERHEAD_SHARE, _OVERHEAD_MIN_MB, _OVERHEAD_MAX_MB = 0.1, 192, 1024
_BYTES: Final = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": MB, "mb": MB, "g": 2**30, "gb": 2**30}


class State(StrEnum):
    """Where keyed state is kept."""

    HEAP = "heap"
    ROCKSDB = "rocksdb"


class Demand(NamedTuple):
    """What a job is to hold: its users and learned items, on how many TaskManagers."""

    state: State = State.HEAP
    users: int = 100_000
    items: int = 10_000
    task_managers: int = 1


class Size(NamedTuple):
    """The memory of a TaskManager in MB. `process_mb` is all of it: the limit of its container."""

    heap_mb: int
    python_mb: int
    managed_mb: int
    process_mb: int


def size_of(demand: Demand) -> Size:
    """The memory of each TaskManager.

    >>> size_of(Demand(State.ROCKSDB, users=1_000_000)).process_mb > size_of(Demand(State.ROCKSDB)).process_mb
    True
    """
    users = -(-demand.users // demand.task_managers)
    on_heap = demand.state == State.HEAP
    heap = HEAP_MB + (users * HEAP_USER_BYTES // MB if on_heap else 0)
    managed = MANAGED_MB if on_heap else CACHE_MB + users * CACHE_USER_BYTES // MB
    python = PYTHON_MB + demand.items * ITEM_KB // 1024
    flink = _FRAMEWORK_HEAP_MB + _FRAMEWORK_DIRECT_MB + _NETWORK_MB + heap + python + managed
    return Size(heap, python, managed, _with_overhead(flink + _METASPACE_MB))


def _with_overhead(mb: int) -> int:
    """`mb` and the JVM's overhead, a tenth of the sum within its bounds, as Flink computes it."""
    overhead = round(mb * _OVERHEAD_SHARE / (1 - _OVERHEAD_SHARE))
    return mb + min(max(overhead, _OVERHEAD_MIN_MB), _OVERHEAD_MAX_MB)


def flink_settings(demand: Demand) -> dict[str, str]:
    """What replaces lines of `flink-conf.yaml`."""
    size = size_of(demand)
    profile = {} if demand.state == State.HEAP else read_flat(ROCKSDB_CONF.read_text(encoding="utf-8"))
    return {
        **profile,
        "taskmanager.memory.process.size": f"{size.process_mb}m",
        "taskmanager.memory.task.off-heap.size": f"{size.python_mb}m",
        "taskmanager.memory.managed.size": f"{size.managed_mb}m",
        "taskmanager.memory.network.min": f"{_NETWORK_MB}m",
        "taskmanager.memory.network.max": f"{_NETWORK_MB}m",
    }


def config_yaml(demand: Demand) -> str:
    """Flink's `config.yaml` for `demand`: one flat key per line."""
    return render(FLINK_CONF.read_text(encoding="utf-8"), flink_settings(demand))


def size_bytes(text: str) -> int:
    """Flink's text of a size in bytes.

    >>> size_bytes("1728m") == 1728 * MB
    True
    """
    number, unit = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower()).groups()  # type: ignore[union-attr]
    return int(number) * _BYTES[unit]
