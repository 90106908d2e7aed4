"""Percentiles, medians and spreads, limits, and the machine. Pure except for machine()."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

RATIO_MIN: Final = 0.60
LEARNING_RATIO_MIN: Final = 0.60
CONSENT_CPU_MAX: Final = 1.10
P50_MORE_MAX_MS: Final = 45
REBUILD_FIRST_MAX_S: Final = 5.0
REBUILD_ALL_MAX_S: Final = 60.0
REBUILD_LISTS: Final = 100_000
P99_MORE_MAX_MS: Final = 130
TAKE_OVER_MAX_S: Final = 2.0
UPGRADE_MAX_S: Final = 10.0
SWAP_MAX_S: Final = 2.0
METRICS_CPU_MAX: Final = 0.01
ROLLBACK_MAX_S: Final = 1.0
ROLLOUT_P99_MORE_MAX_MS: Final = 20
PERCENTILES: Final = (50, 95, 99)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value such that `percent` of all values do not exceed it.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 50), percentile([4.0, 1.0, 3.0, 2.0], 99)
    (2.0, 4.0)
    """
    ranked = sorted(values)
    return ranked[max(0, -int(-len(ranked) * percent // 100) - 1)]


def percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99, to a tenth of a millisecond."""
    return {f"p{percent}": round(percentile(values_ms, percent), 1) for percent in PERCENTILES}


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number, the mean of the two.

    >>> median([3.0, 1.0, 2.0]), median([1.0, 2.0])
    (2.0, 1.5)
    """
    ranked, half = sorted(values), len(values) // 2
    return ranked[half] if len(ranked) % 2 else (ranked[half - 1] + ranked[half]) / 2


class LimitCheck(NamedTuple):
    """A measured value and the limit it is checked against."""

    part: str
    what: str
    figure: str
    limit: str
    is_met: bool


def verdicts(figures: dict[str, Any]) -> list[LimitCheck]:
    """The checks of all limits for which `figures`, in the form of bench.json, has the values."""
    found = []
    for part, least in (("throughput", RATIO_MIN), ("learning", LEARNING_RATIO_MIN)):
        if f"{part}_ratio" in figures:
            ratio = figures[f"{part}_ratio"]
            found.append(LimitCheck(part, f"{part}, job / plain", f"{ratio:.2f}", f">= {least:.2f}", ratio >= least))
    for rate, latency in sorted(figures.get("latency_ms", {}).items(), key=lambda entry: int(entry[0])):
        plain = figures["plain_latency_ms"][rate]
        for name, more_ms in (("p50", P50_MORE_MAX_MS), ("p99", P99_MORE_MAX_MS)):
            limit_ms = plain[name] + more_ms
            what = f"{name} at {int(rate):,} events/s"
            shown = f"<= {limit_ms:.1f} ms (plain {plain[name]:.1f} + {more_ms})"
            found.append(LimitCheck("latency", what, f"{latency[name]:.1f} ms", shown, latency[name] <= limit_ms))
    if "privacy_cpu_ratio" in figures:
        ratio, ratios = figures["privacy_cpu_ratio"], figures["privacy_cpu_ratios"]
        # Shown with its spread: if that includes the limit, the median is inconclusive.
        shown = f"{ratio:.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
        limit, is_met = f"<= {CONSENT_CPU_MAX:.2f}", ratio <= CONSENT_CPU_MAX
        found.append(LimitCheck("privacy", "CPU per event, with / without consent", shown, limit, is_met))
    if "rebuild_all_s" in figures:
        first_s, all_s, lists = figures["rebuild_first_s"], figures["rebuild_all_s"], figures["rebuild_lists"]
        first = f"<= {REBUILD_FIRST_MAX_S:g} s"
        found.append(
            LimitCheck(
                "rebuild", "first list after FLUSHALL", f"{first_s:.1f} s", first, first_s <= REBUILD_FIRST_MAX_S
            )
        )
        limit_s = REBUILD_ALL_MAX_S * max(lists, REBUILD_LISTS) / REBUILD_LISTS
        what = f"{lists:,} lists after FLUSHALL"
        found.append(LimitCheck("rebuild", what, f"{all_s:.1f} s", f"<= {limit_s:g} s", all_s <= limit_s))
    found += _of_rollout(figures) if "rollout_swap_s" in figures else []
    found += _of_take_over(figures) if "take_over_longest_ms" in figures else []
    found += _of_upgrade(figures) if "upgrade_longest_ms" in figures else []
    found += _of_metrics(figures) if "metrics_core_share" in figures else []
    return found


def _of_metrics(figures: dict[str, Any]) -> list[LimitCheck]:
    share = figures["metrics_core_share"]
    shown = f"{share:.2%} of a core"
    is_met = share <= METRICS_CPU_MAX
    return [LimitCheck("metrics", "metrics read every 15 s", shown, f"<= {METRICS_CPU_MAX:.0%} of a core", is_met)]


def _of_take_over(figures: dict[str, Any]) -> list[LimitCheck]:
    longest_s = figures["take_over_longest_ms"] / 1_000
    bound = f"<= {TAKE_OVER_MAX_S:g} s"
    return [
        LimitCheck("take-over", "longest wait for a list", f"{longest_s:.2f} s", bound, longest_s <= TAKE_OVER_MAX_S)
    ]


def _of_upgrade(figures: dict[str, Any]) -> list[LimitCheck]:
    longest_s = figures["upgrade_longest_ms"] / 1_000
    bound = f"<= {UPGRADE_MAX_S:g} s"
    return [LimitCheck("upgrade", "longest wait for a list", f"{longest_s:.1f} s", bound, longest_s <= UPGRADE_MAX_S)]


def _of_rollout(figures: dict[str, Any]) -> list[LimitCheck]:
    swap_s, rollback_s = figures["rollout_swap_s"], figures["rollout_rollback_s"]
    more_ms, restarted = figures["rollout_p99_more_ms"], figures["rollout_restarted"]
    p99 = f"<= +{ROLLOUT_P99_MORE_MAX_MS} ms"
    return [
        LimitCheck("rollout", "slowest swap", f"{swap_s:.2f} s", f"<= {SWAP_MAX_S:g} s", swap_s <= SWAP_MAX_S),
        LimitCheck(
            "rollout",
            "slowest rollback",
            f"{rollback_s:.2f} s",
            f"<= {ROLLBACK_MAX_S:g} s",
            rollback_s <= ROLLBACK_MAX_S,
        ),
        LimitCheck("rollout", "p99 meanwhile", f"{more_ms:+.1f} ms", p99, more_ms <= ROLLOUT_P99_MORE_MAX_MS),
        LimitCheck("rollout", "restart", "yes" if restarted else "no", "no", not restarted),
    ]


def machine() -> str:
    """Cores, processor, memory and kernel of this machine, in one line."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    gib = int(memory) / 2**20
    processor, system = cpu[0] if cpu else platform.machine(), f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores, {processor}, {gib:.0f} GiB, {system}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
