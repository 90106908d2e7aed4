"""`freshet bench read`: the cost of a read, for gateway and library, compared with nginx and Feast's feature server.

It measures the CPU time per request of the serving process (for the library: of the calling one), with 32 requests in
flight, in one run on one machine with the same lists. nginx serves a file. The figures go to `.local/bench-read.json`
and, after a full run, to `bench/RESULTS.md`.
"""

import asyncio
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import uvloop

from adapters.redis.address import RedisAddress
from bench import read_faults, read_feast, read_nginx
from bench.cpu import CpuMeter
from bench.figures import LimitCheck, machine, median, percentile
from bench.http_load import Loaded, ask_for, ask_often
from bench.read_testbed import ReadTestbed, open_read_testbed, user_name
from bench.results import limits, table, write_json, write_section
from deploy.local.paths import LOCAL
from serving.async_reader import AsyncReader

DIRECTORY: Final = LOCAL / "bench-read"
JSON_PATH: Final = LOCAL / "bench-read.json"
CONNECTIONS: Final = 32
GATEWAY_MAX_US: Final = 85.0
CLIENT_MAX_US: Final = 12.0
FEAST_MIN_TIMES: Final = 20.0
OVERLOAD_P99_MAX_TIMES: Final = 2.0
OVERLOAD_TIMES: Final = 10
DOWN_P99_MAX_MS: Final = 100.0
RECOVERY_MAX_S: Final = 2.0
Side = dict[str, Any]
Say = Callable[[str], None]


def served(pid: int, port: int, requests: list[bytes], total: int) -> Side:
    """CPU time per request and latency of a server, after a warm-up with a tenth of the requests."""
    ask_often(port, requests, CONNECTIONS, max(500, total // 10))
    meter = CpuMeter({"server": pid})
    loaded = ask_often(port, requests, CONNECTIONS, total)
    used = meter.since_begin()["server"]
    return {"cpu_us": round(1e6 * used / total, 1), **_of(loaded)}


def _of(loaded: Loaded) -> Side:
    return _latency(loaded.seconds, loaded.lasted_s) | {"statuses": loaded.statuses}


def _latency(seconds: list[float], lasted_s: float) -> Side:
    ranked = {f"p{rank}_ms": round(1e3 * percentile(seconds, rank), 2) for rank in (50, 99)}
    return {"per_s": round(len(seconds) / lasted_s), **ranked}


def read_by_library(testbed: ReadTestbed, total: int) -> Side:
    """CPU time of this process per read with the asyncio library, 32 in flight."""

    async def reads() -> Side:
        address = RedisAddress((testbed.redis_url,), timeout_ms=1_000)
        async with AsyncReader(address, testbed.ring) as reader:
            await _reading(reader, total // 10)
            before = time.process_time()
            began = time.perf_counter()
            seconds = await _reading(reader, total)
            used, lasted = time.process_time() - before, time.perf_counter() - began
        return {"cpu_us": round(1e6 * used / total, 1), **_latency(seconds, lasted)}

    return uvloop.run(reads())


async def _reading(reader: AsyncReader, total: int) -> list[float]:
    names = [user_name(number) for number in range(1_000)]
    seconds: list[float] = []

    async def one_after_the_other(count: int) -> None:
        for number in range(count):
            began = time.perf_counter()
            answer = await reader.recommend(names[number % 1_000], 20)
            seconds.append(time.perf_counter() - began)
            assert answer.reason == "personalised"

    await asyncio.gather(*(one_after_the_other(total // CONNECTIONS) for _ in range(CONNECTIONS)))
    return seconds


def overloaded(testbed: ReadTestbed, seconds: float) -> Side:
    """p99 of urgent requests alone, and together with low-priority requests on ten times as many connections."""
    urgent, rest = testbed.requests("u=0"), testbed.requests("u=7")
    [alone] = ask_for(testbed.port, [(urgent, CONNECTIONS)], seconds / 3)
    beside, low = ask_for(testbed.port, [(urgent, CONNECTIONS), (rest, CONNECTIONS * OVERLOAD_TIMES)], seconds)
    return {
        "alone": _of(alone),
        "beside": _of(beside),
        "low": _of(low),
        "p99_times": round(percentile(beside.seconds, 99) / percentile(alone.seconds, 99), 2),
    }


def measure(testbed: ReadTestbed, total: int, repeats: int, feast: bool, say: Any) -> dict[str, Any]:
    """Measure all sides in turns, `repeats` times; the figure of each is its median."""
    sides: dict[str, list[Side]] = {}
    requests, constant = testbed.requests(), testbed.requests(unique=False)
    with read_nginx.running(testbed) as nginx, read_feast.running(testbed, feast, say) as feature_server:
        for number in range(repeats):
            say(f"round {number + 1} of {repeats}: gateway")
            sides.setdefault("gateway", []).append(served(testbed.gateway.pid, testbed.port, requests, total))
            sides.setdefault("constant", []).append(served(testbed.gateway.pid, testbed.port, constant, total))
            say("library")
            sides.setdefault("client", []).append(read_by_library(testbed, 2 * total))
            if not isinstance(nginx, str):
                say("nginx")
                sides.setdefault("nginx", []).append(served(nginx.pid, nginx.port, nginx.requests, total))
            if not isinstance(feature_server, str):
                say("the feature server of Feast")
                count = max(500, total // 10)
                sides.setdefault("feast", []).append(
                    served(feature_server.pid, feature_server.port, feature_server.requests, count)
                )
    found = {f"{name}_cpu_us": median([side["cpu_us"] for side in each]) for name, each in sides.items()}
    absent = {name: why for name, why in (("nginx", nginx), ("feast", feature_server)) if isinstance(why, str)}
    not_measured: dict[str, Any] = {f"{name}_cpu_us": None for name in absent} | {
        f"{name}_reason": absent[name] for name in absent
    }
    return found | not_measured | {"sides": sides}


def verdicts(found: dict[str, Any]) -> list[LimitCheck]:
    """The checks of all limits for which `found` has the values."""
    checks = [
        _at_most("gateway, CPU a request", found["gateway_cpu_us"], GATEWAY_MAX_US, "µs"),
        _at_most("library (asyncio, 32 in flight), CPU a read", found["client_cpu_us"], CLIENT_MAX_US, "µs"),
    ]
    if found.get("feast_cpu_us"):
        times, limit = found["feast_cpu_us"] / found["gateway_cpu_us"], f">= {FEAST_MIN_TIMES:g}"
        what = "Feast's feature server, times the gateway"
        checks.append(LimitCheck("reading", what, f"{times:.1f}", limit, times >= FEAST_MIN_TIMES))
    for name, seen in found.get("faults", {}).items():
        checks.append(_at_most(f"Redis {name}: answers that failed", seen["failed"], 0, ""))
        checks.append(_at_most(f"Redis {name}: p99 meanwhile", seen["p99_ms"], DOWN_P99_MAX_MS, "ms"))
        checks.append(_at_most(f"Redis {name}: own lists again after", seen["recovered_s"], RECOVERY_MAX_S, "s"))
    if "overload" in found:
        times = found["overload"]["p99_times"]
        checks.append(_at_most("p99 of urgent requests, overloaded / alone", times, OVERLOAD_P99_MAX_TIMES, "times"))
    return checks


def _at_most(what: str, figure: float, limit: float, unit: str) -> LimitCheck:
    shown, at_most = f"{figure:g} {unit}".strip(), f"<= {limit:g} {unit}".strip()
    return LimitCheck("reading", what, shown, at_most, figure <= limit)


def body(found: dict[str, Any], command: str) -> str:
    """The section of RESULTS.md."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    rows = []
    for name, each in found["sides"].items():
        cpu = [side["cpu_us"] for side in each]
        spread = f"{min(cpu):g}–{max(cpu):g}"
        middle = {key: median([side[key] for side in each]) for key in ("per_s", "p50_ms", "p99_ms")}
        rows.append([_NAMES[name], f"{median(cpu):g}", spread, *(f"{value:g}" for value in middle.values())])
    absent = [
        f"{name} was not measured: {found[f'{name}_reason']}."
        for name in ("nginx", "feast")
        if f"{name}_reason" in found
    ]
    return "\n\n".join(
        [
            "## Reading",
            f"{when} on {machine()}; `{command}`.",
            limits(verdicts(found)),
            f"{CONNECTIONS} connections (library: reads in flight), lists of {found['list_bytes']} bytes, one worker; "
            "the gateway with a token, audit and metrics. nginx serves a file of the same size: what HTTP costs. "
            "CPU in µs of the serving process, for the library of the calling one; median of the rounds.",
            table(["side", "CPU µs", "lowest–highest", "answers/s", "p50 ms", "p99 ms"], rows),
            _headers_text(found["sides"]),
            _overload_text(found.get("overload")),
            *absent,
        ]
    )


def _headers_text(sides: dict[str, list[Side]]) -> str:
    differences = [
        one["cpu_us"] - other["cpu_us"] for one, other in zip(sides["gateway"], sides["constant"], strict=True)
    ]
    return (
        "Each request has an `X-Request-Id` and an `X-Forwarded-For` of its own, as behind an ingress. That costs "
        f"{median(differences):+.1f} µs ({min(differences):+.1f} to {max(differences):+.1f}) beside requests with "
        "constant ones."
    )


def _overload_text(found: Side | None) -> str:
    if found is None:
        return ""
    return (
        f"Overload: {CONNECTIONS} connections with urgent requests (`u=0`) beside {CONNECTIONS * OVERLOAD_TIMES} with "
        f"requests that can wait (`u=7`): p99 of the urgent ones {found['beside']['p99_ms']:g} ms, alone "
        f"{found['alone']['p99_ms']:g} ms; the others were answered {found['low']['per_s']:,} times a second, with p99 "
        f"{found['low']['p99_ms']:g} ms."
    )


_NAMES: Final = {
    "gateway": "gateway",
    "constant": "gateway, constant headers",
    "client": "library, asyncio",
    "nginx": "nginx, a file",
    "feast": "Feast, feature server",
}


def run(requests: int, repeats: int, overload_s: float, with_feast: bool, command: str, say: Say) -> tuple[str, bool]:
    """Measure reading; returns the tables, and whether each limit is met. `command` is recorded with the figures."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    try:
        with open_read_testbed(DIRECTORY) as testbed:
            found = measure(testbed, requests, repeats, with_feast, say)
            if overload_s:
                say(f"overload, {overload_s:g} s")
                found["overload"] = overloaded(testbed, overload_s)
            for name, fault in read_faults.FAULTS.items():
                say(f"Redis {name}")
                found.setdefault("faults", {})[name] = read_faults.seen_while(testbed, fault)._asdict()
    finally:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
    found |= {"list_bytes": len(testbed.listed), "machine": machine(), "command": command, "at": time.time()}
    write_json(found, JSON_PATH)
    text = body(found, command)
    if repeats >= 3 and overload_s:
        write_section("reading", text)
    return text, all(verdict.is_met for verdict in verdicts(found))
