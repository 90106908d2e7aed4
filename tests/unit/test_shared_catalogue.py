"""The catalogue of a worker: one follower for all its operators, from the first to the last."""

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapters.kafka.settings import KafkaSettings
from jobs import shared_catalogue
from jobs.shared_catalogue import SharedCatalogue, load_rules
from schemas.catalogue import CatalogueItem
from schemas.errors import SettingsError
from schemas.shop_rules import NO_RULES, ShopRules, parse_rules

KAFKA = KafkaSettings("kafka:9092")


class Follower:
    running: ClassVar[list[Any]] = []

    def __init__(self, kafka: dict[str, Any], topic_prefix: str, on_item: Any) -> None:
        self.ready = threading.Event()
        self.ready.set()
        self.unread = 2
        on_item("tea", CatalogueItem("tea", "Tea", "drinks"))
        self.running.append(self)

    def close(self) -> None:
        self.running.remove(self)


@pytest.fixture(autouse=True)
def follower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_catalogue, "CatalogueFollower", Follower)
    monkeypatch.setattr(shared_catalogue, "_shared", {})
    monkeypatch.setattr(Follower, "running", [])


def opened(rules: ShopRules = NO_RULES) -> SharedCatalogue:
    return shared_catalogue.shared_catalogue(KAFKA, rules)


def test_operators_share_one_follower_until_the_last_stops() -> None:
    first, second = opened(), opened()
    assert first is second and not Follower.running, "parts are opened at submission, too: nothing is followed yet"
    first.start()
    second.start()
    assert len(Follower.running) == 1 and first.assortment.category_of("tea") == "drinks"
    first.stop()
    assert len(Follower.running) == 1
    second.stop()
    assert Follower.running == [] and opened() is not first, "a job that has ended leaves nothing behind"


def test_unread_records_are_counted_once_by_all_operators_of_a_worker() -> None:
    shared = opened()
    shared.start()
    shared.start()
    assert [shared.take_unread(), shared.take_unread()] == [2, 0]
    Follower.running[0].unread = 5
    assert [shared.take_unread(), shared.take_unread()] == [3, 0]
    shared.stop()
    shared.stop()
    assert shared.take_unread() == 0
    shared.start()
    assert shared.take_unread() == 2, "a new follower reads them again"


def test_jobs_with_other_rules_have_their_own() -> None:
    assert opened() is not opened(parse_rules(b"diversity = 0.5"))


def test_rules_are_loaded_from_their_file(tmp_path: Path) -> None:
    assert load_rules(None) == NO_RULES
    assert load_rules("deploy/shop-rules.toml").pins
    broken = tmp_path / "rules.toml"
    broken.write_text("[[pins]]\nitem = 'a'\nposition = 0")
    with pytest.raises(
        SettingsError, match=r"rules.file .*rules.toml: Expected `int` >= 1 - at `\$.pins\[0\].position`"
    ):
        load_rules(str(broken))
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_rules(str(tmp_path / "none.toml"))
