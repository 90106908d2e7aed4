"""A rotation of the user key on real parts, with a TaskManager killed midway: equal before and after."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.secrets.key_rings import load_key_ring
from deploy.local import product
from freshet.cli import main as freshet
from schemas import topics
from schemas.pseudonyms import Pseudonymiser
from schemas.store import user_keys
from serving.reader import Reader
from tests.support.live import Live, start_live, until

pytestmark = pytest.mark.privacy

SHOPPERS = [f"shopper-{number}" for number in range(3_000)]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = start_live(tmp_path_factory.mktemp("rotation"), 2, {"parallelism.default": "2"})
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


def run(live: Live, command: str, *more: str) -> int:
    return freshet.run(["rotate", command, "--settings", str(live.product.settings_path), *more])


def kept(live: Live, names: Pseudonymiser) -> dict[str, tuple[object, bytes | None]]:
    """State and list of each shopper, as bytes if they exist."""
    states, prefix = live.plain_states(SHOPPERS), live.settings.redis.prefix
    lists = live.redis.mget([user_keys(prefix, names.user(shopper))[0] for shopper in SHOPPERS])
    return {s: (states.get(names.user(s)), raw) for s, raw in zip(SHOPPERS, lists, strict=True)}


@pytest.mark.promise("rotation-keeps")
def test_rotation_keeps_profiles_and_lists_with_killed_task_manager(live: Live, capsys):
    live.consent(SHOPPERS)
    for number, shopper in enumerate(SHOPPERS):
        live.interact(shopper, f"item-{number % 50 + 1:05d}")
    live.wait_until_accounted(len(SHOPPERS))
    before = kept(live, live.pseudonymiser)
    assert all(state and raw for state, raw in before.values())

    assert run(live, "relink") == 2
    assert "begin with" in capsys.readouterr().err
    assert run(live, "start") == 0
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    live.job_id = product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
    live.stack.rest.wait_running(live.job_id)
    ring = load_key_ring(live.product.endpoints["key_ring"])
    assert run(live, "end") == 2
    assert f"{len(SHOPPERS)} users are still known under key 1" in capsys.readouterr().err

    reader, answers, stop = Reader(live.product.endpoints["redis"], ring), [], threading.Event()
    reading = threading.Thread(target=lambda: read_all_the_while(reader, answers, stop))
    moving = threading.Thread(target=lambda: answers.append(run(live, "relink")))
    reading.start()
    moving.start()
    live.stack.kill_task_manager(0)
    moving.join()
    stop.set()
    reading.join()
    reader.close()
    assert 0 in answers, "relink has ended well"
    assert set(answers) == {0, "personalised"}, "nobody was without their list for a moment"

    assert kept(live, Pseudonymiser(ring)) == before
    live.checkpoint()
    old = live.pseudonymiser.user("shopper-0")
    assert old.startswith("p1.") and list(live.redis.scan_iter("{p1.*", count=10_000)) == []
    assert live.known_users() == {"2": len(SHOPPERS)}

    capsys.readouterr()
    assert run(live, "show") == 0
    assert f"{len(SHOPPERS)} users are known under key 2" in capsys.readouterr().out
    assert run(live, "end") == 2
    assert "for another 7.0 days" in capsys.readouterr().err
    snapshots = [Path(savepoint.removeprefix("file:")), live.stack.directory / "flink"]
    assert run(live, "end", *(part for path in snapshots for part in ("--snapshots", str(path)))) == 2
    assert "delete it first" in capsys.readouterr().err
    shutil.rmtree(snapshots[0])
    until(lambda: run(live, "end", "--snapshots", str(snapshots[1])) == 0, "the last older checkpoint to go", 120, 1)
    told = [json.loads(r.value) for r in live.records(topics.AUDIT) if b'"kind":"key"' in r.value]
    assert [record["change"] for record in sorted(told, key=lambda record: record["seq"])][:2] == [
        "rotation_started",
        "relinked",
    ]
    ended = load_key_ring(live.product.endpoints["key_ring"])
    assert ended.previous is None and ring.keys["user"]["1"] not in str(ended.keys)


def read_all_the_while(reader: Reader, answers: list[object], stop: threading.Event) -> None:
    while not stop.is_set():
        for shopper in SHOPPERS[::10]:
            answers.append(reader.recommend(shopper).reason)
