"""JSON records: which are accepted, and the reasons for which others are rejected."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.consents import ConsentChange
from schemas.events import CONTEXT_ENTRIES_MAX, EVENT_TYPES, ITEM_REQUIRED, Interaction
from schemas.ids import is_id
from schemas.rejects import RejectReason
from schemas.wire.codecs import PAYLOAD_BYTES_MAX, BadRecord, json_codec
from tests.support.examples import examples

CODEC = json_codec()
SECRET = "xyzzy-secret"


def event(**changes: Any) -> dict[str, Any]:
    record = {"event_id": "e", "type": "view", "ts": 1_767_225_600_000, "user_id": "ada", "item_id": "tea"} | changes
    return {name: value for name, value in record.items() if value is not ...}


def consent(**changes: Any) -> dict[str, Any]:
    return {"user_id": "ada", "level": "full", "ts": 1_767_225_600_000} | changes


def reason(raw: bytes) -> str:
    with pytest.raises(BadRecord) as caught:
        CODEC.interaction(raw)
    return caught.value.reason.value


def reason_of_event(**changes: Any) -> str:
    return reason(json.dumps(event(**changes)).encode())


def with_raw(field: str, raw: bytes) -> bytes:
    return json.dumps(event())[:-1].encode() + b', "%b": %b}' % (field.encode(), raw)


def test_complete_event_and_consent_are_accepted() -> None:
    assert CODEC.interaction(json.dumps(event()).encode()) == (Interaction(**event()), False)
    assert CODEC.consent(json.dumps(consent()).encode()) == (ConsentChange(**consent()), False)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"", "empty_value", id="empty"),
        pytest.param(None, "empty_value", id="tombstone"),
        pytest.param(b"null", "wrong_type", id="null"),
        pytest.param(b"[]", "wrong_type", id="array"),
        pytest.param(b'[{"user_id": "ada"}]', "wrong_type", id="array of one"),
        pytest.param(b'"text"', "wrong_type", id="text"),
        pytest.param(b"{}", "missing_field", id="nothing in it"),
        pytest.param(b"not json", "malformed", id="not JSON"),
        pytest.param(b"\xff\xfe{}", "malformed", id="another encoding"),
        pytest.param(json.dumps(event()).encode() + b"{}", "malformed", id="two records"),
        pytest.param(json.dumps(event()).encode("utf-16"), "malformed", id="UTF-16"),
        pytest.param(b"\0" + json.dumps(event()).encode(), "malformed", id="NUL before"),
        pytest.param(json.dumps(event()).encode() + b"\0", "malformed", id="NUL after"),
        pytest.param(with_raw("query", b'"a\0b"'), "malformed", id="NUL in a text"),
        pytest.param(with_raw("query", b'"\\u0000"'), "control_character", id="escaped NUL in a text"),
        pytest.param(with_raw("query", b'"\\ud800"'), "malformed", id="lone surrogate"),
        pytest.param(with_raw("query", b'"\xff"'), "bad_encoding", id="bad UTF-8 in a known field"),
        pytest.param(with_raw("query", b'"\xed\xa0\x80"'), "bad_encoding", id="surrogate in UTF-8"),
        pytest.param(with_raw("query", b"[" * 30_000), "wrong_type", id="nesting in a text"),
        pytest.param(with_raw("context", b'{"a":' * 9_000), "wrong_type", id="nesting in the context"),
        pytest.param(with_raw("zzz", b"[" * 30_000), "nested_too_deeply", id="nesting in an unknown field, open"),
        pytest.param(with_raw("zzz", b"[" * 30_000 + b"]" * 30_000), "nested_too_deeply", id="nesting, closed"),
        pytest.param(b"[" * 60_000, "wrong_type", id="nesting and nothing else"),
        pytest.param(with_raw("value", b"1e999"), "out_of_range", id="1e999"),
        pytest.param(with_raw("value", b"1" + b"0" * 400), "out_of_range", id="400 digits"),
        pytest.param(with_raw("value", b"1" + b"0" * 30), "out_of_range", id="10^30 as a value"),
        pytest.param(with_raw("value", b"NaN"), "malformed", id="NaN"),
        pytest.param(with_raw("value", b"-1"), "out_of_range", id="below zero"),
        pytest.param(with_raw("ts", b"1" + b"0" * 30), "out_of_range", id="10^30 as a time"),
        pytest.param(with_raw("ts", b"%d" % (2**53 + 1)), "out_of_range", id="a time that no double holds"),
        pytest.param(with_raw("ts", b"1.5"), "wrong_type", id="half a millisecond"),
        pytest.param(with_raw("ts", b'"2026-01-01"'), "wrong_type", id="a date as a time"),
    ],
)
def test_invalid_bytes_are_refused_with_the_reason(raw: bytes, expected: str) -> None:
    assert reason(raw) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_id": ...}, "missing_user"),
        ({"user_id": None}, "missing_user"),
        ({"user_id": ""}, "missing_user"),
        ({"user_id": 7}, "wrong_type"),
        ({"user_id": "u" * 257}, "out_of_range"),
        ({"user_id": "a\x00b"}, "control_character"),
        ({"event_id": "a\nb"}, "control_character"),
        ({"event_id": ...}, "missing_field"),
        ({"item_id": ...}, "missing_item"),
        ({"item_id": None}, "missing_item"),
        ({"item_id": ""}, "missing_item"),
        ({"item_id": "a\u202eb"}, "control_character"),
        ({"user_id": "a\u2029b"}, "control_character"),
        ({"item_id": "\ufeffitem-1"}, "control_character"),
        ({"session_id": "\x7f"}, "control_character"),
        ({"request_id": "\x1b[31m"}, "control_character"),
        ({"query": "tea\ttime"}, "control_character"),
        ({"query": "q" * 257}, "out_of_range"),
        ({"context": {"device": "a\x00"}}, "control_character"),
        ({"context": {"a b": "c"}}, "out_of_range"),
        ({"context": {str(n): "v" for n in range(CONTEXT_ENTRIES_MAX + 1)}}, "out_of_range"),
        ({"type": "teleport"}, "unknown_type"),
        ({"type": "VIEW"}, "unknown_type"),
        ({"type": "missing required field `user_id`"}, "unknown_type"),
        ({"type": 1}, "wrong_type"),
        ({"type": ...}, "missing_field"),
        ({"surface": "home\n"}, "out_of_range"),
        ({"currency": "EUR\n"}, "out_of_range"),
        ({"currency": "euro"}, "out_of_range"),
        ({"quantity": 0}, "out_of_range"),
        ({"position": -1}, "out_of_range"),
        ({"scroll_pct": 100.5}, "out_of_range"),
        ({"dwell_ms": 86_400_001}, "out_of_range"),
        ({"zzz": "new", "user_id": ""}, "missing_user"),
    ],
)
def test_an_event_out_of_bounds_is_refused_with_the_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason_of_event(**changes) == expected


def test_oversized_record_is_refused_before_decoding() -> None:
    assert reason_of_event(query="x" * 1_000_000) == "too_large"
    assert reason(b"not json" + b" " * PAYLOAD_BYTES_MAX) == "too_large"


def test_largest_allowed_record_is_accepted() -> None:
    raw = json.dumps(event()).encode()
    assert CODEC.interaction(raw.ljust(PAYLOAD_BYTES_MAX))[0].user_id == "ada"


def test_unknown_fields_are_dropped_and_reported() -> None:
    taken, unknown = CODEC.interaction(json.dumps(event(zzz={"a": [1, None]}, brand=SECRET)).encode())
    assert unknown
    assert SECRET not in repr(taken)
    assert msgspec.to_builtins(taken) == event()


def test_last_of_duplicate_fields_counts() -> None:
    assert CODEC.interaction(with_raw("user_id", b'"bob"'))[0].user_id == "bob"


def test_item_is_required_for_kinds_about_items() -> None:
    for kind in EVENT_TYPES:
        if kind in ITEM_REQUIRED:
            assert reason_of_event(type=kind, item_id=...) == "missing_item"
        else:
            assert CODEC.interaction(json.dumps(event(type=kind, item_id=...)).encode())[0].item_id is None


@pytest.mark.parametrize("query", ["می‌خواهم", "👨‍👩‍👧 gift", "thé vert", "緑茶", "🫨"])
def test_searches_in_any_script_are_accepted(query: str) -> None:
    assert CODEC.interaction(json.dumps(event(query=query, context={"q": query})).encode())[0].query == query


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_id": None}, "missing_user"),
        ({"user_id": "a\x00"}, "control_character"),
        ({"level": "all"}, "out_of_range"),
        ({"granted": ["everything"]}, "out_of_range"),
        ({"granted": "personalise"}, "wrong_type"),
        ({"ts": 0}, "out_of_range"),
        ({"expires_at": 2**53}, "out_of_range"),
        ({"erase": "yes"}, "wrong_type"),
        ({"erase": None}, "wrong_type"),
        ({"tcf": "x" * 65_537}, "out_of_range"),
    ],
)
def test_a_consent_out_of_bounds_is_refused_with_the_reason(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadRecord) as caught:
        CODEC.consent(json.dumps(consent(**changes)).encode())
    assert caught.value.reason.value == expected


@pytest.mark.promise("dead-letters")
def test_refusal_does_not_reveal_the_record() -> None:
    fields = ("event_id", "type", "ts", "user_id", "item_id", "surface", "currency", "position", "context", SECRET)
    texts = [json.dumps(event(**{field: [SECRET]})) for field in fields] + [json.dumps(event(type=SECRET)), SECRET]
    texts += [json.dumps(event(surface=f"{SECRET}!")), json.dumps(event(query=f"{SECRET}\x00"))]
    for text in texts:
        try:
            CODEC.interaction(text.encode())
        except BadRecord as bad:
            assert str(bad) == bad.reason.value
            assert bad.args == (bad.reason.value,)
            assert bad.__cause__ is None
            assert bad.__context__ is None or bad.__suppress_context__


def test_reasons_are_single_words() -> None:
    assert all(reason.value == reason.name.lower() for reason in RejectReason)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=examples(60), deadline=None)
@given(st.binary(max_size=300))
@pytest.mark.promise("dead-letters")
def test_arbitrary_bytes_decode_or_raise_bad_record(raw: bytes) -> None:
    for decode in (CODEC.interaction, CODEC.consent, CODEC.named):
        try:
            decode(raw)
        except BadRecord:
            continue


@settings(max_examples=examples(60), deadline=None)
@given(st.dictionaries(st.sampled_from([*Interaction.__struct_fields__, "zzz"]), json_values, max_size=4))
def test_accepted_records_are_bounded(changes: dict[str, Any]) -> None:
    try:
        taken, _ = CODEC.interaction(json.dumps(event(**changes)).encode())
    except BadRecord:
        return
    assert msgspec.convert(msgspec.to_builtins(taken), Interaction).user_id == taken.user_id
    assert is_id(taken.user_id)
    assert abs(taken.ts) <= 2**53
