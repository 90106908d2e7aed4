"""Exploration on the real stack: from lists with propensities over impressions and clicks to an estimate."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.files.export_parts import part_events, read_manifest
from evaluation.explored_log import log_of
from privacy.export import export, rewrite
from schemas.exports import ExportedEvent
from schemas.lists import RecommendationList
from tests.support.live import Live, start_live, until

SHOPPERS = [f"shopper-{number}" for number in range(12)]
CURIOUS, PRIVATE = SHOPPERS[0], "private"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = start_live(
        tmp_path_factory.mktemp("explore"),
        flink_settings={"execution.checkpointing.interval": "500 ms"},
        more_settings="\n[explore]\nslots = 3\npool = 2\n",
    )
    try:
        running.consent(SHOPPERS)
        running.consent([PRIVATE], denied=["measure"])
        yield running
    finally:
        running.close()
        running.stack.stop()


def fresh_list(shop: Live, user: str, item: str) -> RecommendationList:
    before = shop.list_of(user)
    shop.interact(user, item)

    def newer() -> RecommendationList | None:
        found = shop.list_of(user)
        return found if found is not None and (before is None or found.v > before.v) else None

    made: RecommendationList = until(newer, "a new list")
    return made


def freshet(shop: Live, *words: str, user: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "freshet", *words]
    return subprocess.run(command, input=user, capture_output=True, text=True)


def test_draws_of_a_list_reach_an_estimate(shop: Live, tmp_path: Path) -> None:
    shown = 0
    for round_number in range(20):
        for user in SHOPPERS:
            found = fresh_list(shop, user, f"item-{1 + round_number:05d}")
            assert [slot.position for slot in found.explored] == [len(found.items) - n for n in (3, 2, 1)]
            for slot in found.explored:
                place: dict[str, Any] = {"position": slot.position, "request_id": found.recommendation_id}
                place["surface"] = "home"
                item = found.items[slot.position].id
                shop.interact(user, item, "impression", **place)
                shown += 1
                if (round_number + slot.position) % 2:
                    shop.interact(user, item, **place)
    assert not fresh_list(shop, PRIVATE, "item-00001").explored
    shop.checkpoint()
    tries = iter(range(100))

    def exported() -> Path | None:
        out = tmp_path / f"export-{next(tries)}"
        export(shop.settings, out, "measure")
        return out if len(log_of(events_in(out)).rows) == shown else None

    out = until(exported, "all rows in an export", pause_s=1)
    rows = log_of(events_in(out)).rows
    assert {(len(row.pool), row.propensity) for row in rows} == {(5, 1 / 5), (4, 1 / 4), (3, 1 / 3)}
    clicks = sum(row.clicked for row in rows)
    assert 0 < clicks < shown

    model = str(shop.stack.directory / "model")
    done = freshet(shop, "model", "off-policy", str(out), "--model", model, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["impressions"], told["clicks"], told["users"], told["unusable"]) == (shown, clicks, len(SHOPPERS), 0)
    assert told["new"]["dr"]["low"] <= told["new"]["dr"]["value"] <= told["new"]["dr"]["high"]
    assert told["known"] > 0.9, "it is the model that made the pools"

    words = ["explain", "--settings", str(shop.product.settings_path), "--role", "tester", "--purpose", "why", "--json"]
    explained = json.loads(freshet(shop, *words, "--user", "-", user=CURIOUS).stdout)
    assert [one["drawn"] for one in explained["items"] if "drawn" in one] == [1 / 5, 1 / 4, 1 / 3]

    train = tmp_path / "train"
    export(shop.settings, train, "train")
    assert not log_of(events_in(train)).rows, "draws are for measuring alone"
    shop.consent([CURIOUS], level="none", erase=True)
    rewrite(shop.settings, out)
    assert len(log_of(events_in(out)).rows) == shown - 60, "an erased user leaves the log"
    refused = freshet(shop, "model", "off-policy", str(train), "--model", model)
    assert (refused.returncode, "[explore] slots" in refused.stderr) == (2, True)


def events_in(folder: Path) -> list[ExportedEvent]:
    return [event for part in read_manifest(folder).parts for event in part_events(folder, part)]
