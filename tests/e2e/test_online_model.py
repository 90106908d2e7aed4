"""The online model on the real stack: an empty shop learns, and goes on learning after its TaskManager is killed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from adapters.kafka.settings import python_kafka_options
from adapters.secrets.key_rings import load_key_ring
from models.random_model import random_model
from schemas import topics
from schemas.catalogue import CatalogueItem
from schemas.lists import RecommendationList
from schemas.metrics import JOB
from serving.catalogue import Catalogue
from serving.displayed import DisplayedList
from serving.events import EventProducer
from serving.reader import Reader
from tests.support.live import Live, start_live, until
from tests.support.scraping import scraped

LABELS_OF = {name: metric.labels or ("le",) for metric in JOB for name in metric.exported()}
SHOPPERS = [f"shopper-{n}" for n in range(6)]


@pytest.fixture(scope="module", params=["thread", "process"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    settings = {"python.execution-mode": request.param, "execution.checkpointing.interval": "500 ms"}
    settings["metrics.reporters"] = "prometheus"
    running = start_live(tmp_path_factory.mktemp("online"), flink_settings=settings, model=None)
    running.mode = request.param
    try:
        running.consent([*SHOPPERS, "ada", "bob"])
        for user in (*SHOPPERS, "ada", "bob"):
            running.wait_for_consent(user)
        yield running
    finally:
        running.close()
        running.stack.stop()


def personal_list(shop: Live, user: str) -> RecommendationList | None:
    found = shop.list_of(user)
    return found if found is not None and found.reason == "personalised" else None


def listed(shop: Live, user: str, item: str) -> bool:
    found = personal_list(shop, user)
    return found is not None and item in {one.id for one in found.items}


def test_metrics_have_the_documented_names_in_both_modes(shop: Live) -> None:
    shop.interact("ada", "tea")
    shop.consent(["withdrawn"])
    shop.consent(["withdrawn"], level="none")
    # In process mode, the metrics of an operator exist from its first record on: nothing is judged or seen here.
    idle = {"judge", "feedback"} if shop.mode == "process" else set()
    wanted = {name for metric in JOB if not metric.once and metric.by not in idle for name in metric.exported()}
    told: dict[str, set[tuple[str, ...]]] = {}

    def complete() -> bool:
        told.clear()
        for name, labels, _ in scraped(shop.stack.directory):
            told.setdefault(name, set()).add(
                tuple(labels[label] for label in LABELS_OF.get(name, ()) if label in labels)
            )
        return wanted <= told.keys()

    try:
        until(complete, "all metrics", deadline_s=60, pause_s=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}: {sorted(wanted - told.keys())}") from None
    ours = {name for name in told if "freshet" in name}
    assert ours <= {name for metric in JOB for name in metric.exported()}, "each metric is listed"
    for metric in JOB:
        if metric.full_name not in told and metric.kind != "histogram":
            continue
        if metric.values:
            assert told[metric.full_name] == {(value,) for value in metric.values}
        elif metric.kind == "histogram":
            assert told[f"{metric.full_name}_bucket"] == {(str(bound),) for bound in (*metric.buckets, "+Inf")}
    assert told["freshet_model_buckets"] == {("online",)}


def test_empty_shop_learns_and_survives_a_killed_task_manager(shop: Live) -> None:
    for shopper in SHOPPERS:
        for item in ("tea", "cup", "pot"):
            shop.interact(shopper, item)

    def resembles() -> bool:
        shop.interact("ada", "tea")
        return listed(shop, "ada", "pot")

    until(resembles, "a personal list for a session that resembles others", pause_s=0.5)
    found = personal_list(shop, "ada")
    assert found is not None and found.model.startswith("online@")

    command = [sys.executable, "-m", "freshet", "model", "online", "--settings", str(shop.product.settings_path)]
    printed = subprocess.run([*command, "--item", "tea", "--json"], capture_output=True, check=True).stdout
    status = json.loads(printed)
    assert status["items"] >= 3 and {"cup", "pot"} <= set(status["neighbours"])
    unknown = subprocess.run([*command, "--item", "no such item"], capture_output=True, text=True)
    assert (unknown.returncode, "does not know the item" in unknown.stderr) == (2, True)

    shop.checkpoint()
    shop.stack.kill_task_manager()
    for shopper in SHOPPERS:
        shop.interact(shopper, "tea")
        shop.interact(shopper, "kettle")

    def learned_since() -> bool:
        shop.interact("bob", "tea")
        return listed(shop, "bob", "kettle") and listed(shop, "bob", "pot")

    until(learned_since, "what was learned before and after the kill", pause_s=0.5)

    def similar() -> set[str]:
        found = shop.similar("tea")
        return set() if found is None else {one.id for one in found.items}

    until(lambda: {"cup", "pot", "kettle"} <= similar(), "items similar to tea, from before and after the kill")

    again = subprocess.run(
        [*command[:4], "relearn", "--settings", str(shop.product.settings_path)], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert "of 4 items" in again.stdout
    until(learned_since, "lists of the model that was learned again", pause_s=0.5)


def test_list_is_explained_by_recent_items(shop: Live) -> None:
    """Comes after the shop has learned."""
    shop.interact("bob", "tea")
    until(lambda: personal_list(shop, "bob") is not None, "a list")
    command = [sys.executable, "-m", "freshet", "explain", "--settings", str(shop.product.settings_path), "--user", "-"]
    command += ["--role", "tester", "--purpose", "why", "--json"]
    printed = subprocess.run(command, input=b"bob", capture_output=True, check=True).stdout
    found = json.loads(printed)
    assert found["made_by"].startswith("online@") and found["items"]
    recents = {"tea", "kettle"}
    assert {one["because"] for one in found["items"] if "because" in one} <= recents
    unknown = subprocess.run(command, input=b"nobody", capture_output=True, text=False)
    assert (unknown.returncode, b"no list of their own" in unknown.stderr) == (2, True)


def test_withdrawn_item_leaves_every_kind_of_list(shop: Live) -> None:
    """Comes after the shop has learned: `pot` is in lists."""
    kafka, ring = python_kafka_options(shop.settings.kafka), load_key_ring(shop.product.endpoints["key_ring"])
    prefix = shop.settings.kafka.topic_prefix
    with (
        Catalogue(kafka, topic_prefix=prefix) as catalogue,
        Reader(shop.product.endpoints["redis"], ring, catalogue=catalogue) as reader,
    ):

        def seen() -> dict[str, bool]:
            found = {
                "own": reader.recommend("ada", 30),
                "similar": reader.similar("tea", 30),
                "popular": reader.popular(30),
                "trending": reader.trending(30),
            }
            return {kind: "pot" in {item.id for item in one.items} for kind, one in found.items()}

        shop.interact("ada", "tea")
        until(lambda: seen()["own"] and seen()["similar"], "lists with the item")
        withdrawn = CatalogueItem("pot", "Pot", available=False)
        shop.send(topics.CATALOGUE, [(b"pot", msgspec.json.encode(withdrawn))])
        until(lambda: not any(seen().values()), "lists without the item", deadline_s=5)

    def made_without() -> bool:
        shop.interact("ada", "tea")
        return personal_list(shop, "ada") is not None and not listed(shop, "ada", "pot")

    until(made_without, "a list that the job made without it", pause_s=0.5)


def freshet(shop: Live, *words: str) -> str:
    command = [sys.executable, "-m", "freshet", *words, "--settings", str(shop.product.settings_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_worse_shadow_ends_by_itself(shop: Live, tmp_path: Path) -> None:
    """Some go through the shop's new items one after the other; others follow, so that their next item is known."""
    ahead, behind = [f"ahead-{n}" for n in range(8)], [f"behind-{n}" for n in range(16)]
    shop.consent([*ahead, *behind])
    name = random_model(tmp_path / "worse", items=50).name
    freshet(shop, "model", "push", str(tmp_path / "worse"))
    freshet(shop, "model", "shadow", name, "--percent", "100")
    steps = iter(range(1_000))

    def verdict() -> bool:
        step = next(steps)
        for user in ahead:
            shop.interact(user, f"step-{step + 2}")
        for user in behind:
            shop.interact(user, f"step-{step}")
        found = json.loads(freshet(shop, "model", "trials", "--json"))
        return bool(found) and found[0]["verdict"] == "worse"

    def shadows() -> set[str]:
        return {bucket.get("shadow", "") for bucket in json.loads(freshet(shop, "model", "status", "--json"))}

    until(verdict, "the verdict that a model that knows no item of the shop is worse", pause_s=1)
    until(lambda: shadows() == {""}, "the end of the shadow in all buckets", pause_s=1)


def test_what_users_do_with_a_list_is_in_metrics(shop: Live) -> None:
    """Comes after others have met these items."""

    def list_of_ada() -> RecommendationList | None:
        shop.interact("ada", "step-2")
        return personal_list(shop, "ada")

    until(list_of_ada, "a personal list", pause_s=0.5)
    kafka, ring = python_kafka_options(shop.settings.kafka), load_key_ring(shop.product.endpoints["key_ring"])
    prefix = shop.settings.kafka.topic_prefix
    with Reader(shop.product.endpoints["redis"], ring) as reader, EventProducer(kafka, topic_prefix=prefix) as events:
        shown = DisplayedList(reader.recommend("ada", 3), "ada", surface="home")
        seen = shown.impressions()
        events.record_all(seen)
        events.record(shown.clicked(shown.answer.items[0].id))

    def counted() -> bool:
        records = [json.loads(record.value) for record in shop.records(topics.METRICS)]
        feedback = [one for one in records if one["kind"] == "feedback" and one["model"] == "online"]
        return any((one["lists"], one["impressions"], one["clicks"]) == (1, len(seen), 1) for one in feedback)

    until(counted, "the feedback in metrics", pause_s=1)
