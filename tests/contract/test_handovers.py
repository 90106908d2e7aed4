"""The record of a take-over on a real Redis: of those who decide at once, one wins, and followed jobs stay followed."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from adapters.redis.handovers import Handovers
from adapters.secrets.key_rings import new_key_ring, write_key_ring
from jobs.handover_gate import HandoverGate
from jobs.settings import Settings
from schemas.handover import Handover
from tests.support.redis_server import RealRedis, running_redis
from udfs.handover import ALWAYS

FORMER, LATER, AT = 5, 8, 2**50
ANNOUNCED = Handover(FORMER, LATER, AT, "announced")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealRedis]:
    with running_redis(tmp_path) as found:
        yield found


def a_gate(server: RealRedis, directory: Path, epoch: int) -> HandoverGate:
    ring = directory / "key-ring.json"
    if not ring.exists():
        write_key_ring(new_key_ring(), ring)
    told = {
        "kafka": {"bootstrap_servers": "localhost:1"},
        "redis": {"url": server.url},
        "privacy": {"key_ring": str(ring)},
    }
    return HandoverGate(msgspec.convert(told, Settings), epoch, False)


def test_only_one_decision_wins(server: RealRedis):
    one, other = Handovers(server.store_client()), Handovers(server.store_client())
    assert one.announce(ANNOUNCED)
    assert not other.announce(msgspec.structs.replace(ANNOUNCED, to=9)), "one is under way"
    assert other.change(ANNOUNCED, "dropped")
    assert not one.change(ANNOUNCED, "agreed"), "it is dropped already"
    found = other.read()
    assert found is not None and found.state == "dropped"
    assert one.announce(msgspec.structs.replace(ANNOUNCED, to=9)), "a dropped one is no obstacle"


def test_all_subtasks_of_a_job_have_to_know_this_announcement(server: RealRedis):
    records = Handovers(server.store_client())
    records.say_ready(ANNOUNCED, FORMER, 0)
    assert records.ready(ANNOUNCED, FORMER, 2) == 1
    records.say_ready(ANNOUNCED, FORMER, 1)
    assert records.ready(ANNOUNCED, FORMER, 2) == 2
    assert records.ready(msgspec.structs.replace(ANNOUNCED, at=AT + 1), FORMER, 2) == 0


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_gate_agrees_only_before_it_has_read_later_records(server: RealRedis, tmp_path: Path):
    records, gate, newest = Handovers(server.store_client()), a_gate(server, tmp_path, FORMER), {0: AT - 1, 1: AT}
    gate.start()
    try:
        assert gate.turn == ALWAYS
        for subtask, newest_ms in newest.items():
            gate.join(subtask, lambda newest_ms=newest_ms: newest_ms)  # type: ignore[misc]
        records.announce(ANNOUNCED)
        wait_for(lambda: records.ready(ANNOUNCED, FORMER, 1) == 1, "subtask 0 to agree")
        assert records.ready(ANNOUNCED, FORMER, 2) == 1, "subtask 1 has read a record of that moment"
        records.change(ANNOUNCED, "agreed")
        wait_for(lambda: gate.turn.end_ms == AT and not gate.turn.undecided, "the decision")
        server.client.flushall()
        wait_for(lambda: records.read() is not None, "the record to be put back")
    finally:
        gate.stop()


def test_undecided_gate_drops_the_take_over_in_the_end(
    server: RealRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jobs.handover_gate.DECIDED_WITHIN_S", 0.1)
    records, gate = Handovers(server.store_client()), a_gate(server, tmp_path, FORMER)
    records.announce(ANNOUNCED)
    gate.start()
    try:
        assert gate.turn.undecided
        assert gate.settled() == ALWAYS
        assert not records.change(ANNOUNCED, "agreed")
    finally:
        gate.stop()


def test_job_that_starts_again_knows_that_it_was_followed(server: RealRedis, tmp_path: Path):
    records, gate = Handovers(server.store_client()), a_gate(server, tmp_path, FORMER)
    records.put_back(msgspec.structs.replace(ANNOUNCED, state="done"))
    gate.start()
    try:
        assert gate.turn.is_over
    finally:
        gate.stop()
