"""What a record of the catalogue says: a withdrawal is never dropped, and never withdraws another item."""

import logging
from typing import Any

import msgspec
import pytest

from adapters.kafka.catalogue_topic import CatalogueFollower
from schemas.catalogue import CatalogueItem, change_of
from serving.catalogue import Catalogue
from udfs.assortment import Assortment

WITHDRAWN = CatalogueItem("tea", available=False)


def record(**fields: Any) -> bytes:
    return msgspec.json.encode({"item_id": "tea", **fields})


@pytest.mark.parametrize("value", [record(available=False), record(name="Tea", available=False)])
def test_withdrawal_needs_no_name(value: bytes) -> None:
    change = change_of(b"tea", value)
    assert change.item is not None
    assert (change.item_id, change.item.available, change.fault) == ("tea", False, "")


@pytest.mark.parametrize(
    "value",
    [
        record(name="Tea", category="c" * 65, available=False),
        record(name=None, available=False),
        record(available="false"),
        record(available=None),
        b'{"item_id": "tea", "available": false',
        b"\xff",
        b"",
        b"[" * 100_000,
        b'{"available": false}',
        b"null",
    ],
)
def test_record_that_cannot_be_read_withdraws_its_item(value: bytes) -> None:
    assert change_of(b"tea", value)[:2] == ("tea", WITHDRAWN)
    assert change_of(b"tea", value).fault == "a record cannot be read"


@pytest.mark.parametrize("key", [None, b""])
def test_item_of_a_record_without_a_key_is_the_one_in_its_value(key: bytes | None) -> None:
    assert change_of(key, record(name="Tea"))[:2] == ("tea", CatalogueItem("tea", "Tea"))
    assert change_of(key, record(name=3))[:2] == ("tea", WITHDRAWN)
    assert change_of(key, b"{")[0] == change_of(key, None)[0] == ""


def test_record_under_the_key_of_another_item_withdraws_that_of_the_key_only() -> None:
    for value in (record(available=False), record(name="Tea")):
        assert change_of(b"cup", value)[:2] == ("cup", CatalogueItem("cup", available=False))


@pytest.mark.parametrize("key", [b"\xff", b"a\x00b", b"k" * 65])
def test_key_that_is_no_item_id_changes_no_item(key: bytes) -> None:
    assert change_of(key, record(available=False))[:2] == ("", None)
    assert change_of(key, None)[0] == ""


def test_deletion_makes_the_item_of_the_key_unknown() -> None:
    assert change_of(b"tea", None) == ("tea", None, "")


def test_job_and_readers_count_what_they_cannot_use_and_log_none_of_it(caplog: pytest.LogCaptureFixture) -> None:
    assortment, catalogue = Assortment(), Catalogue.__new__(Catalogue)
    catalogue._items, catalogue.withdrawn = {}, set()
    for on_item in (assortment.note, catalogue._take):
        follower = CatalogueFollower.__new__(CatalogueFollower)
        follower.unread, follower._on_item = 0, on_item
        catalogue._follower = follower
        with caplog.at_level(logging.ERROR):
            follower._take(b"tea", record(name="Secret", category=5))
            follower._take(b"cup", record(name="Secret"))
            follower._take(b"\xff", record(name="Secret"))
        assert follower.unread == 3
    assert (catalogue.withdrawn, catalogue.unread) == ({"tea", "cup"}, 3)
    shelf = assortment.shelf("own", 0)
    assert shelf is not None and shelf.excluded.sum() == 1
    assert len(caplog.messages) == 2 * 2 and not any("Secret" in line or "tea" in line for line in caplog.messages)
