"""The file with the rules of the shop: what it accepts, and what it says about errors."""

from datetime import UTC, datetime

import pytest

from schemas.shop_rules import NO_RULES, parse_rules
from udfs.assortment import Assortment

EXAMPLE = b"""
category_items_max = 4
diversity = 0.2
caps = {gifts = 2}

[[boosts]]
categories = ["tea"]
factor = 1.5
from = 2026-12-01T00:00:00Z
until = 2026-12-27T00:00:00+01:00

[[exclusions]]
items = ["recalled"]

[[pins]]
item = "gift-card"
position = 1
lists = ["popular"]
segments = ["surface:home"]
"""


def test_example_is_accepted() -> None:
    rules = parse_rules(EXAMPLE)
    assert (rules.cap_of("gifts"), rules.cap_of("other")) == (2, 4)
    assert rules.boosts[0].until == datetime(2026, 12, 26, 23, tzinfo=UTC)
    assert parse_rules(b"") == NO_RULES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[boosts]]\nfactor = 2.0", "without `items` or `categories` it would have no effect: set one.*boosts"),
        ("[[boosts]]\nitems = ['a']\nfactor = 11.0", r"<= 10.* - at `\$.boosts\[0\].factor`"),
        ("[[boosts]]\nitems = ['a']\nfactor = 2.0\nfrom = 2026-12-01T00:00:00", "timezone.*from"),
        (
            "[[boosts]]\nitems = ['a']\nfactor = 2.0\nfrom = 2026-12-02T00:00:00Z\nuntil = 2026-12-01T00:00:00Z",
            "`from` must be before `until`",
        ),
        ("[[exclusions]]\nsegments = ['all']", "no effect"),
        ("[[exclusions]]\nitems = ['a']\nsegments = ['x']", r"no segment 'x'.*such as `surface:home`.*exclusions\[0\]"),
        ("[[pins]]\nitem = 'a'\nposition = 1\nsegments = ['country:']", r"no segment 'country:'.*pins\[0\]"),
        ('[[exclusions]]\nitems = ["a\\u0000"]', r"item 'a\\x00' has a character that no item id.*exclusions\[0\]"),
        ('[[pins]]\nitem = "a\\u202e"\nposition = 1', r"has a character that no item id has.*pins\[0\]"),
        ("category_items_max = 10000", r"<= 1000 - at `\$.category_items_max`"),
        ("caps = {tea = 1000000000000000000000}", r"caps"),
        ("[[pins]]\nitem = 'a'\nposition = 0", r">= 1.*pins\[0\].position"),
        ("[[pins]]\nitem = 'a'\nposition = 1\nlists = ['similar']", "similar"),
        ("[[pins]]\nitem = 'a'\nposition = 1\nlists = ['own']\nsegments = ['all']", 'set `lists = \\["popular"\\]`'),
        (
            "[[pins]]\nitem = 'a'\nposition = 1\n[[pins]]\nitem = 'b'\nposition = 1",
            "pins 1 and 2 are about position 1 of one list: remove one of them",
        ),
        ("[[pins]]\nitem = 'a'\nposition = 1\n[[pins]]\nitem = 'a'\nposition = 2", "about item 'a' of one list"),
        (
            "[[pins]]\nitem = 'a'\nposition = 1\n[[exclusions]]\nitems = ['a']",
            "pin 1 is of 'a', which is excluded: remove one of the two",
        ),
        ("caps = {tea = 0}", ">= 1"),
        ("diversity = 1.0", "< 1"),
        ("category_max = 2", "category_max"),
    ],
)
def test_error_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_rules(text.encode())


def test_pins_at_different_times_and_places_do_not_collide() -> None:
    december = "from = 2026-12-01T00:00:00Z\nuntil = 2027-01-01T00:00:00Z"
    january = "from = 2027-01-01T00:00:00Z"
    pin = "[[pins]]\nposition = 1\n"
    assert len(parse_rules(f"{pin}item = 'a'\n{december}\n{pin}item = 'b'\n{january}".encode()).pins) == 2
    assert (
        len(parse_rules(f"{pin}item = 'a'\nlists = ['own']\n{pin}item = 'b'\nlists = ['popular']".encode()).pins) == 2
    )


def test_timed_rules_begin_and_end() -> None:
    made = Assortment(
        parse_rules(
            b"[[boosts]]\nitems = ['a']\nfactor = 2.0\nfrom = 1970-01-01T00:00:01Z\nuntil = 1970-01-01T00:00:02Z"
        )
    )
    assert [made.shelf("own", now_ms) is not None for now_ms in (999, 1_000, 1_999, 2_000)] == [
        False,
        True,
        True,
        False,
    ]
