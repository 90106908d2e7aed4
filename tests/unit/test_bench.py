"""The pure parts of the benchmarks: events, percentiles, limits, and the files of results."""

import json

import pytest

from bench.figures import median, percentile, percentiles, verdicts
from bench.latency import Latency, LatencyPlan
from bench.probes import probe_users, probe_value, sent_and_phase
from bench.report import latency_body, one_repeat, throughput_body
from bench.results import with_section, write_json, write_section
from bench.throughput import Side, figures
from bench.workload import KINDS, consent_records, event_records, final_versions, make_workload, user_id
from schemas.wire.codecs import json_codec

BEGIN_MS = 1_780_000_000_000


def a_workload(events=2_000, seed=1):
    return make_workload(events, BEGIN_MS, seed, users=1_000, items=200)


def a_side(events=1_000, cpu_s=0.1):
    return Side(events, 1.0, {"consumer": cpu_s}, {})


def test_seed_determines_the_bytes():
    assert list(event_records(a_workload())) == list(event_records(a_workload()))
    assert list(event_records(a_workload())) != list(event_records(a_workload(seed=2)))


def test_every_event_and_consent_is_valid_and_keyed_by_its_user():
    codec = json_codec()
    for key, value in event_records(a_workload()):
        event, has_unknown_fields = codec.interaction(value)
        assert (event.user_id.encode(), has_unknown_fields) == (key, False)
    for key, value in consent_records([user_id(7)], BEGIN_MS):
        assert codec.consent(value)[0].user_id.encode() == key


def test_event_times_move_forward_and_all_kinds_occur():
    workload = a_workload(10_000)
    repeated = workload.duplicates
    backwards = int((workload.ts[1:] < workload.ts[:-1]).sum())
    assert backwards <= repeated
    assert 0 < repeated < 0.02 * 10_000
    assert set(workload.kind.tolist()) == set(range(len(KINDS)))


def test_duplicate_event_has_same_bytes_and_no_version():
    workload = a_workload()
    records = list(event_records(workload))
    assert len(set(records)) == len(records) - workload.duplicates
    unique = {value: key for key, value in records}
    for user, version in final_versions(workload).items():
        assert version == 1 + sum(1 for key in unique.values() if key == user_id(user).encode())
        break


@pytest.mark.parametrize(("percent", "expected"), [(50, 50.0), (95, 95.0), (99, 99.0), (100, 100.0), (0, 1.0)])
def test_percentiles_are_values_that_occurred(percent, expected):
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == expected


def test_percentiles_of_one_value_are_that_value():
    assert percentiles([3.14]) == {"p50": 3.1, "p95": 3.1, "p99": 3.1}
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5


def test_limits_are_met_exactly_up_to_the_limit():
    plain = {"p50": 5.0, "p95": 6.0, "p99": 7.0}
    at_limit = {
        "throughput_ratio": 0.60,
        "latency_ms": {"500": {"p50": 50.0, "p95": 60.0, "p99": 137.0}},
        "plain_latency_ms": {"500": plain},
    }
    assert [verdict.is_met for verdict in verdicts(at_limit)] == [True, True, True]
    over = {**at_limit, "latency_ms": {"500": {"p50": 50.1, "p95": 60.0, "p99": 137.1}}, "throughput_ratio": 0.599}
    assert [verdict.is_met for verdict in verdicts(over)] == [False, False, False]
    assert verdicts({}) == []


def test_replacing_a_section_keeps_all_others(tmp_path):
    path = tmp_path / "RESULTS.md"
    write_section("throughput", "replaced\n1", path)
    write_section("latency", "other", path)
    write_section("throughput", r"new \1", path)
    text = path.read_text()
    assert "replaced" not in text
    assert r"new \1" in text
    assert "other" in text
    assert with_section(text, "latency", "other") == text


def test_bench_json_keeps_what_was_not_measured(tmp_path):
    path = tmp_path / "bench.json"
    write_json({"throughput_ratio": 0.5, "latency_ms": {"500": {}}}, path)
    write_json({"throughput_ratio": 0.6}, path)
    assert json.loads(path.read_text()) == {"throughput_ratio": 0.6, "latency_ms": {"500": {}}}


def test_throughput_is_reported_as_median_and_spread():
    repeats = [(a_side(cpu_s=0.2), a_side(cpu_s=0.1)), (a_side(cpu_s=0.25), a_side(cpu_s=0.1))]
    assert figures(repeats) == {"throughput_ratio": 0.45, "events_per_cpu_second": {"job": 4_500, "bare": 10_000}}
    assert "ratio 0.500" in one_repeat(*repeats[0])
    body = throughput_body(repeats, 1_000_000)
    assert "| job | 4,500 | 4,000–5,000 |" in body
    assert "Ratio: 0.450 (median of 2, 0.400–0.500)." in body


def test_latency_is_reported_beside_the_plain_consumer():
    body = latency_body(
        [Latency(500, [40.0, 50.0], [5.0, 6.0], 0.004, {"taskmanager": 0.41, "redis": 0.08})], LatencyPlan(60, 60)
    )
    assert "| 500 events/s: event → list | 40.0 | 50.0 | 50.0 | 2 |" in body
    assert "never more than 4 ms" in body
    assert "0.49 cores at 500 events/s (taskmanager 0.41, redis 0.08)" in body


def test_a_probe_is_a_valid_event_that_says_when_it_was_sent():
    value = probe_value(probe_users()[3], 7, "2000", 123_456_789, BEGIN_MS)
    assert sent_and_phase(value) == (123_456_789, "2000")
    event, has_unknown_fields = json_codec().interaction(value)
    assert (event.user_id, event.item_id, has_unknown_fields) == ("probe-0003", "item-00008", False)
