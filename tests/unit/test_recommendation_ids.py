"""Recommendation ids: what they say, and that nobody else can make one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import ID_LENGTH_MAX
from schemas.recommendation_ids import RecommendationIds, Served

IDS = RecommendationIds(bytes(range(32)))
AT = 1_764_489_600_000


def made(pseudonym: str = "p1.ada", model: str = "online@17", arm: str = "") -> str:
    return IDS.of(pseudonym, model, arm, 3, AT).decode()


def test_an_id_names_what_was_served() -> None:
    served = IDS.read(made(arm="b"), ["p1.ada"])
    assert served is not None
    assert (served.model, served.arm, len(served.list)) == ("online", "b", 8)


def test_golden_id() -> None:
    assert made() == "r1.online..AAAAA2kr-YAEtKEDJ_aR"
    assert IDS.of("p1.ada", "online@17", "", 3, AT) == IDS.of("p1.ada", "online@99", "", 3, AT)


def test_ids_of_many_lists_are_those_of_each() -> None:
    lists = [("p1.ada", "online@17", 3), ("p1.bob", "popularity", 1 << 40), ("", "online@18", 0)]
    assert IDS.of_each(lists, "b", AT) == [IDS.of(who, model, "b", version, AT) for who, model, version in lists]
    assert IDS.of_each([], "b", AT) == []


@given(st.text(max_size=40), st.text(max_size=20), st.integers(0, 2**53))
def test_an_id_fits_into_a_request_id_and_can_be_read_whatever_the_names(model: str, arm: str, version: int) -> None:
    text = IDS.of("p1.ada", model, arm, version, AT).decode()
    assert len(text) <= ID_LENGTH_MAX
    assert text.isascii()
    assert isinstance(IDS.read(text, ["p1.ada"]), Served)


@pytest.mark.parametrize("position", range(2, len(made())))
def test_an_id_with_one_other_character_names_nothing(position: int) -> None:
    text = made()
    other = "A" if text[position] != "A" else "B"
    changed = text[:position] + other + text[position + 1 :]
    assert IDS.read(changed, ["p1.ada"]) is None


def test_an_id_counts_for_its_user_alone() -> None:
    assert IDS.read(made("p1.ada"), ["p1.ben", ""]) is None
    assert IDS.read(made("p1.ada"), ["p2.ada", "p1.ada"]) is not None, "made before a rotation"
    assert IDS.read(made(""), ["p1.ben", ""]) is not None, "a list that is nobody's own"


def test_an_id_of_another_key_names_nothing() -> None:
    assert RecommendationIds(bytes(32)).read(made(), ["p1.ada"]) is None


@given(st.text())
def test_no_text_breaks_reading(text: str) -> None:
    assert IDS.read(text, ["p1.ada"]) is None
    assert IDS.read("r1." + text, ["p1.ada"]) is None
