"""Formats the figures as text and tables. Pure."""

from bench.figures import median, percentiles
from bench.latency import SETTLE_S, WARM_UP_RATE, Latency, LatencyPlan
from bench.results import table
from bench.throughput import WARM_UP_SHARE, Side
from bench.workload import ITEMS, USERS

Repeats = list[tuple[Side, Side]]


def one_repeat(job: Side, bare: Side) -> str:
    """A repeat as one line."""
    ratio = job.events_per_cpu_second / bare.events_per_cpu_second
    return (
        f"job {job.events_per_cpu_second:,.0f}, plain consumer {bare.events_per_cpu_second:,.0f} "
        f"events per CPU-second, ratio {ratio:.3f}"
    )


def throughput_body(repeats: Repeats, events: int) -> str:
    """The throughput part: both sides, and their CPU time by process."""
    warm_up = int(events * WARM_UP_SHARE)
    text = (
        f"{events:,} events, {USERS:,} users, {ITEMS:,} items, TopK 50. "
        f"The first {warm_up:,} events of each side warm it up and do not count. "
        f"CPU time of all processes of a side, the broker and Redis among them; the harness is not."
    )
    rows = [
        [name, *_spread([side.events_per_cpu_second for side in sides]), *_spread([_rate(side) for side in sides])]
        for name, sides in (("job", [job for job, _ in repeats]), ("plain consumer", [bare for _, bare in repeats]))
    ]
    head = ["side", "events per CPU-second", "lowest–highest", "events per second", "lowest–highest"]
    ratios = _spread([job.events_per_cpu_second / bare.events_per_cpu_second for job, bare in repeats], digits=3)
    said = f"Ratio: {ratios[0]} (median of {len(repeats)}, {ratios[1]})."
    return "\n\n".join([text, table(head, rows), said, _processes(repeats)])


def _rate(side: Side) -> float:
    return side.events / side.wall_s


def _spread(values: list[float], digits: int = 0) -> list[str]:
    return [f"{median(values):,.{digits}f}", f"{min(values):,.{digits}f}–{max(values):,.{digits}f}"]


def _processes(repeats: Repeats) -> str:
    """Median microseconds per event of each process, and of each group of threads in the TaskManager."""
    rows = []
    for name, sides in (("job", [job for job, _ in repeats]), ("plain", [bare for _, bare in repeats])):
        rows += [[f"{name}: {part}", _per_event(sides, part)] for part in sides[0].cpu]
    jobs = [job for job, _ in repeats]
    groups = sorted(jobs[0].threads, key=lambda group: -jobs[0].threads[group])
    shown = [group for group in groups if jobs[0].threads[group] > jobs[0].events * 0.5e-6]
    threads = [
        [
            f"TaskManager thread: {group}",
            f"{median([job.threads.get(group, 0) / job.events * 1e6 for job in jobs]):.1f}",
        ]
        for group in shown
    ]
    return table(["CPU time", "µs per event"], [*rows, *threads])


def _per_event(sides: list[Side], part: str) -> str:
    return f"{median([side.cpu[part] / side.events * 1e6 for side in sides]):.1f}"


def latency_body(measured: list[Latency], plan: LatencyPlan) -> str:
    """The latency part."""
    text = (
        f"Milliseconds from just before `send()` of a probe event to its list in Redis, seen from outside, "
        f"and to the same event in a plain consumer. {plan.warm_up_s} s of warm-up at {WARM_UP_RATE:,} events/s; "
        f"at each rate {SETTLE_S} s to settle and {plan.measure_s} s measured."
    )
    rows = []
    for latency in measured:
        for name, values in (("event → list", latency.job_ms), ("plain consumer", latency.plain_ms)):
            figures = [f"{value:.1f}" for value in percentiles(values).values()]
            rows.append([f"{latency.rate:,} events/s: {name}", *figures, str(len(values))])
    late_ms = max(latency.load_late_s for latency in measured) * 1000
    late = f"The load was never more than {late_ms:.0f} ms behind its plan."
    used = [
        f"{sum(one.cores.values()):.2f} cores at {one.rate:,} events/s "
        f"({', '.join(f'{name} {cores:.2f}' for name, cores in one.cores.items())})"
        for one in measured
    ]
    cores = f"The processes, of which Kafka also serves load, probes and plain consumer, took {'; '.join(used)}."
    return "\n\n".join([text, table(["", "p50", "p95", "p99", "probes"], rows), late, cores])
