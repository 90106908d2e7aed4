"""The bytes of lists equal msgspec's encoding of the struct."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.lists import (
    ListedItem,
    RecommendationList,
    decode_list,
    decode_user_list,
    encode_list,
    history_endings,
    item_fragment,
    join_list,
)
from serving.answers import Recommendation, cut
from serving.gateway.listing import described
from tests.support.examples import examples

numbers = st.integers(0, 2**53 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
scored = st.lists(st.tuples(texts, st.floats(allow_nan=False, allow_infinity=False)), max_size=12)
reasons = st.sampled_from(["personalised", "session", "popular"])


def encoded(whole: RecommendationList) -> bytes:
    fragments = [item_fragment(item.id) for item in whole.items]
    scores = [item.score for item in whole.items]
    return encode_list(
        whole.v, whole.epoch, msgspec.json.encode(whole.model), whole.at, whole.reason, fragments, scores
    )


lists = st.builds(
    RecommendationList,
    v=numbers,
    epoch=numbers,
    model=texts,
    at=numbers,
    reason=reasons,
    items=scored.map(lambda pairs: tuple(ListedItem(*pair) for pair in pairs)),
)


@settings(max_examples=examples(80), deadline=None)
@given(lists)
def test_list_from_fragments_equals_encoded_list(whole: RecommendationList) -> None:
    assert encoded(whole) == msgspec.json.encode(whole)
    assert decode_list(encoded(whole)) == whole


@pytest.mark.parametrize("item", ["tee-grün", "茶", '"},{"id":"x', "\\", "a,b", "👨‍👩‍👧", "\x7f", "\x00"])
def test_item_ids_are_escaped(item: str) -> None:
    whole = RecommendationList(1, 2, 'm",', 3, "popular", (ListedItem(item, 0.5), ListedItem("tea", -1e-9)))
    assert decode_list(encoded(whole)) == whole


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_list_with_nan_score_is_rejected_by_readers(score: float) -> None:
    whole = RecommendationList(1, 2, "m", 3, "popular", (ListedItem("tea", score),))
    assert b'"score":null}' in encoded(whole)
    with pytest.raises(msgspec.ValidationError):
        decode_list(encoded(whole))


def test_version_and_epoch_are_in_the_first_64_bytes_the_script_reads() -> None:
    whole = RecommendationList(2**53 - 1, 2**53 - 1, "m" * 99, 3, "popular", ())
    assert encoded(whole)[:64].startswith(b'{"v":9007199254740991,"epoch":9007199254740991,')


class ListBeforeArms(msgspec.Struct):
    """A list as readers of before experiments know it."""

    v: int
    epoch: int
    model: str
    at: int
    reason: str
    items: tuple[ListedItem, ...]


@pytest.mark.parametrize("arm", ["", "b"])
def test_arm_is_in_a_list_for_new_readers_and_does_not_disturb_others(arm: str) -> None:
    raw = join_list(
        3, 7, b'"m"', 9, "personalised", [item_fragment("tea"), item_fragment("cup")], [b"0.5", b"0.2"], arm
    )
    assert decode_list(raw).arm == arm and decode_list(cut(raw, 1)).arm == arm and decode_list(cut(raw, 0)).arm == arm
    assert msgspec.json.decode(raw, type=ListBeforeArms).reason == "personalised"
    tag, model, reason, at_ms = described(raw, b"")
    assert (tag, model, reason, at_ms) == (b'"3.7.9."', b'"m"', "personalised", 9)
    assert Recommendation.of(decode_list(raw), (), 10) == Recommendation((), "personalised", 3, 1, "", "m", arm)


def test_list_outside_of_experiments_is_as_before() -> None:
    raw = join_list(3, 7, b'"m"', 9, "popular", [item_fragment("tea")], [b"0.5"])
    assert raw == b'{"v":3,"epoch":7,"model":"m","at":9,"reason":"popular","items":[{"id":"tea","score":0.5}]}'
    assert msgspec.json.encode(decode_list(raw)) == raw


def test_line_breaks_in_ids_do_not_shift_what_others_viewed() -> None:
    met = [(["tea\n]"], ["\u2028"]), ([], []), (["cup"], ["pot"])]
    empty = encode_list(1, 1, b'"m"', 1, "popular", [], [])
    found = [decode_user_list(empty[:-2] + ending) for ending in history_endings(met)]
    assert [(list(one.viewed), list(one.bought)) for one in found] == met
