"""CPU time of processes: user and system time, including all living and ended children."""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import psutil

Seconds = dict[str, float]
"""Name of a process → CPU seconds."""


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of `process` itself and of the children it has waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


class CpuMeter:
    """CPU seconds of some processes since the meter was created; a process and its children share a name.

    For processes named in `split`, living children are counted separately, as `<name>: workers`.
    """

    def __init__(self, processes: Mapping[str, int], split: Iterable[str] = ()) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._split = frozenset(split)
        self._begin = self._read()

    def _read(self) -> Seconds:
        seconds: Seconds = {}
        for name, process in self._processes.items():
            children = sum(_if_living(child) for child in process.children(recursive=True))
            seconds[name] = cpu_seconds(process)
            if name in self._split:
                seconds[f"{name}: workers"] = children
            else:
                seconds[name] += children
        return seconds

    def since_begin(self) -> Seconds:
        """CPU seconds by name."""
        return difference(self._read(), self._begin)


def _if_living(process: psutil.Process) -> float:
    try:
        return cpu_seconds(process)
    except psutil.NoSuchProcess:
        return 0.0


THREAD_GROUPS: Final[tuple[tuple[str, str], ...]] = (
    (r"^C[12] Comp", "JIT"),
    (r"^(GC|G1|VM Thread|VM Periodic|Gang|Service|Sweeper)", "GC"),
    (r"^(Source Data Fet|Source: raw)", "source"),
    (r"^kafka-producer", "Kafka producers"),
    (r"^(Flink Netty|flink-|pekko|jobmanager|Checkpoint)", "Flink"),
)


def thread_seconds(pid: int) -> Seconds:
    """CPU seconds of a Java process's living threads by purpose; others by their name (15 characters)."""
    seconds: Seconds = {}
    ticks = os.sysconf("SC_CLK_TCK")
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            name, _, numbers = stat.read_text().partition("(")[2].rpartition(")")
            fields = numbers.split()
            group = next((group for pattern, group in THREAD_GROUPS if re.match(pattern, name)), name)
            seconds[group] = seconds.get(group, 0.0) + (int(fields[11]) + int(fields[12])) / ticks
    return seconds


def difference(now: Seconds, begin: Seconds) -> Seconds:
    """The seconds spent since `begin`, by name; names that did not exist then count in full."""
    return {name: round(seconds - begin.get(name, 0.0), 3) for name, seconds in now.items()}
