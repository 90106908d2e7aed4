"""Records of others as interactions: the formats that presets know, and two ways of reading that must agree."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SettingsError
from schemas.rejects import RejectReason
from schemas.wire.codec_choice import InputSettings, codec_for
from schemas.wire.codecs import BadRecord, Codec, Mapped
from schemas.wire.map_settings import PRESETS, FieldMap, InputMap
from schemas.wire.mapping import Mapper
from schemas.wire.presets import PRESET_MAPS
from schemas.wire.snowplow import COLUMNS

VIEWED = {
    "type": "track",
    "event": "Product Viewed",
    "messageId": "ajs-next-1",
    "timestamp": "2026-03-01T10:00:00.250Z",
    "anonymousId": "anon-1",
    "userId": "ada",
    "context": {"library": {"name": "analytics.js"}, "ip": "10.0.0.1"},
    "properties": {"product_id": "tea-1", "sku": "T1", "price": 3.5, "currency": "eur", "position": 2, "quantity": 1},
}
ORDERED = VIEWED | {
    "event": "Order Completed",
    "properties": {
        "order_id": "7",
        "currency": "EUR",
        "products": [{"product_id": "tea-1", "price": 3.5, "quantity": 2}, {"product_id": "pot-2", "price": "19.90"}],
    },
}
GA4_ROW = {
    "event_date": "20260301",
    "event_timestamp": "1772359200250000",
    "event_name": "view_item",
    "user_pseudo_id": "1722.33",
    "user_id": None,
    "event_params": [
        {"key": "ga_session_id", "value": {"string_value": None, "int_value": "177"}},
        {"key": "currency", "value": {"string_value": "EUR"}},
    ],
    "items": [{"item_id": "tea-1", "price": 3.5, "quantity": 1}],
}
GA4_REQUEST = {
    "client_id": "1722.33",
    "timestamp_micros": 1_772_359_200_250_000,
    "events": [
        {"name": "view_item", "params": {"currency": "EUR", "items": [{"item_id": "tea-1"}, {"item_id": "pot-2"}]}},
        {"name": "search", "params": {"search_term": "kettle"}},
        {"name": "page_view", "params": {}},
    ],
}
CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "c-1",
    "source": "/shop",
    "type": "view",
    "time": "2026-03-01T11:00:00.25+01:00",
    "datacontenttype": "application/json",
    "data": {"user_id": 7, "item_id": 11},
}
PUT_EVENTS = {
    "trackingId": "t",
    "userId": "ada",
    "sessionId": "s-1",
    "eventList": [
        {"eventId": "p-1", "eventType": "Click", "itemId": "tea-1", "sentAt": 1_772_359_200},
        {"eventId": "p-2", "eventType": "Purchase", "itemId": "pot-2", "sentAt": 1_772_359_201, "eventValue": 20},
    ],
}
GORSE = {"FeedbackType": "read", "UserId": "ada", "ItemId": "tea-1", "Timestamp": "2026-03-01T10:00:00Z"}
METARANK = {
    "event": "interaction",
    "id": "m-1",
    "ranking": "r-1",
    "timestamp": "1772359200250",
    "user": "ada",
    "session": "s-1",
    "type": "click",
    "item": "tea-1",
    "fields": [],
}
ECOMMERCE = "iglu:com.snowplowanalytics.snowplow.ecommerce"
SNOWPLOW_TSV = "\t".join(
    {
        "event_id": "e-1",
        "collector_tstamp": "2026-03-01 10:00:01.000",
        "derived_tstamp": "2026-03-01 10:00:00.250",
        "domain_userid": "d-1",
        "domain_sessionid": "s-1",
        "contexts": json.dumps(
            {
                "schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0",
                "data": [
                    {"schema": "iglu:com.acme/page/jsonschema/1-0-0", "data": {"id": "x"}},
                    {"schema": f"{ECOMMERCE}/product/jsonschema/1-0-0", "data": {"id": "tea-1", "price": 3.5}},
                ],
            }
        ),
        "unstruct_event": json.dumps(
            {
                "schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0",
                "data": {
                    "schema": f"{ECOMMERCE}/snowplow_ecommerce_action/jsonschema/1-0-2",
                    "data": {"type": "product_view"},
                },
            }
        ),
    }.get(column, "")
    for column in COLUMNS
)
SNOWPLOW_JSON = {
    "event_id": "e-1",
    "derived_tstamp": "2026-03-01T10:00:00.250Z",
    "domain_userid": "d-1",
    "domain_sessionid": "s-1",
    "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1": [{"id": "tea-1", "price": 3.5}],
    "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1": {"type": "product_view"},
}
AT = 1_772_359_200_250


def codec(given: InputMap) -> Codec:
    def no_source(place: str) -> Any:
        raise AssertionError(place)

    return codec_for(InputSettings(map=given), no_source)


def read(given: InputMap, record: object) -> Mapped:
    mapped = codec(given).mapped
    assert mapped is not None
    return mapped(record.encode() if isinstance(record, str) else json.dumps(record).encode())


def told(mapped: Mapped) -> list[tuple[str, str, int, str | None]]:
    return [(event.type, event.user_id, event.ts, event.item_id) for event in mapped.events]


@pytest.mark.parametrize(
    ("preset", "record", "events"),
    [
        ("segment", VIEWED, [("view", "ada", AT, "tea-1")]),
        ("segment", ORDERED, [("purchase", "ada", AT, "tea-1"), ("purchase", "ada", AT, "pot-2")]),
        ("rudderstack", VIEWED | {"userId": ""}, [("view", "anon-1", AT, "tea-1")]),
        ("ga4", GA4_ROW, [("view", "1722.33", AT, "tea-1")]),
        (
            "ga4",
            GA4_REQUEST,
            [("view", "1722.33", AT, "tea-1"), ("view", "1722.33", AT, "pot-2"), ("search", "1722.33", AT, None)],
        ),
        ("cloudevents", CLOUD_EVENT, [("view", "7", AT, "11")]),
        ("personalize", PUT_EVENTS, [("click", "ada", AT - 250, "tea-1"), ("purchase", "ada", AT + 750, "pot-2")]),
        ("gorse", GORSE, [("view", "ada", AT - 250, "tea-1")]),
        ("metarank", METARANK, [("click", "ada", AT, "tea-1")]),
        ("snowplow", SNOWPLOW_TSV, [("view", "d-1", AT, "tea-1")]),
        ("snowplow", SNOWPLOW_JSON, [("view", "d-1", AT, "tea-1")]),
    ],
)
def test_preset_reads_the_records_of_its_format(preset: Any, record: object, events: list[Any]) -> None:
    mapped = read(InputMap(preset=preset), record)
    assert told(mapped) == events
    assert mapped.faults == []
    assert len({event.event_id for event in mapped.events}) == len(events), "each has an id of its own"


def test_fields_beside_the_item_come_from_the_product() -> None:
    first, second = read(InputMap(preset="segment"), ORDERED).events
    assert (first.value, first.quantity, first.currency, first.event_id) == (3.5, 2, "EUR", "ajs-next-1#0")
    assert (second.value, second.quantity, second.currency, second.event_id) == (19.9, None, "EUR", "ajs-next-1#1")
    [viewed] = read(InputMap(preset="segment"), VIEWED).events
    assert (viewed.value, viewed.position, viewed.currency, viewed.event_id) == (3.5, 2, "EUR", "ajs-next-1")
    [row] = read(InputMap(preset="ga4"), GA4_ROW).events
    assert (row.session_id, row.currency, row.value) == ("177", "EUR", 3.5)


@pytest.mark.parametrize(
    ("record", "ignored"),
    [
        (VIEWED | {"event": "Coupon Applied"}, 1),
        (VIEWED | {"type": "page", "event": None}, 1),
        ({"type": "identify", "userId": "ada", "traits": {"email": "ada@example.org"}}, 1),
        (ORDERED | {"event": "Order Refunded"}, 1),
    ],
)
def test_records_that_are_no_interaction_are_ignored(record: object, ignored: int) -> None:
    assert read(InputMap(preset="segment"), record) == Mapped([], ignored, [])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (VIEWED | {"userId": None, "anonymousId": None}, RejectReason.MISSING_USER),
        (VIEWED | {"properties": {}}, RejectReason.MISSING_ITEM),
        (VIEWED | {"timestamp": None}, RejectReason.MISSING_FIELD),
        (VIEWED | {"timestamp": "yesterday"}, RejectReason.WRONG_TYPE),
        (VIEWED | {"userId": ["ada"]}, RejectReason.WRONG_TYPE),
        (VIEWED | {"userId": True}, RejectReason.WRONG_TYPE),
        (VIEWED | {"properties": {"product_id": "tea", "price": -1}}, RejectReason.OUT_OF_RANGE),
        (VIEWED | {"properties": {"product_id": "a\nb"}}, RejectReason.CONTROL_CHARACTER),
    ],
)
def test_record_that_cannot_be_an_event_is_rejected_with_its_reason(record: object, reason: RejectReason) -> None:
    mapped = read(InputMap(preset="segment"), record)
    assert (mapped.events, mapped.ignored, [fault.reason for fault in mapped.faults]) == ([], 0, [reason])


def test_one_bad_product_leaves_the_others() -> None:
    record = ORDERED | {"properties": {"products": [{"product_id": "tea-1"}, {"name": "no id"}, {"product_id": "c"}]}}
    mapped = read(InputMap(preset="segment"), record)
    assert [event.item_id for event in mapped.events] == ["tea-1", "c"]
    assert [fault.reason for fault in mapped.faults] == [RejectReason.MISSING_ITEM]


@pytest.mark.parametrize("raw", [b"", b"not json", b"[1]", b'{"event":"Product Viewed"', b"[" * 5000, b"\xff{}"])
def test_bytes_that_are_no_record_are_rejected(raw: bytes) -> None:
    for preset in PRESETS:
        mapped = codec(InputMap(preset=preset)).mapped  # type: ignore[arg-type]
        assert mapped is not None
        try:
            found = mapped(raw)
        except BadRecord:
            continue
        assert found.events == []


def test_record_of_ours_is_read_beside_those_of_a_map() -> None:
    ours = {"event_id": "e", "type": "click", "ts": AT, "user_id": "bob", "item_id": "tea-1"}
    for preset in PRESETS:
        assert told(read(InputMap(preset=preset), ours)) == [("click", "bob", AT, "tea-1")], preset  # type: ignore[arg-type]


def test_own_paths_replace_those_of_the_preset() -> None:
    own = InputMap(
        preset="segment",
        user_id=["traits.customer", "userId"],
        type=FieldMap("event", values={"Wishlist": "rating", "Product Viewed": "ignore"}, other="reject"),
        context={"country": "context.country"},
    )
    [event] = read(own, VIEWED | {"event": "Wishlist", "traits": {"customer": 42}, "context": {"country": "de"}}).events
    assert (event.user_id, event.type, event.context) == ("42", "rating", {"country": "de"})
    assert read(own, VIEWED) == Mapped([], 1, [])
    assert [fault.reason for fault in read(own, VIEWED | {"event": "?"}).faults] == [RejectReason.UNKNOWN_TYPE]


def test_ratings_are_read_and_not_the_price() -> None:
    reviewed = VIEWED | {"event": "Product Reviewed", "properties": {"product_id": "x", "rating": "5", "price": 99}}
    [event] = read(InputMap(preset="segment"), reviewed).events
    assert (event.type, event.value) == ("rating", 5)
    [event] = read(InputMap(preset="gorse"), GORSE | {"FeedbackType": "star", "Value": 4}).events
    assert (event.type, event.value) == ("rating", 4)
    [event] = read(InputMap(preset="metarank"), METARANK | {"fields": [{"name": "rating", "value": 3}]}).events
    assert event.value == 3


def test_broken_record_of_ours_is_rejected_and_not_ignored() -> None:
    ours = {"event_id": "o", "type": "purchase", "ts": AT, "user_id": "u"}
    for broken, reason in [
        (ours, RejectReason.MISSING_ITEM),
        (ours | {"item_id": "i", "currency": "XXXX"}, RejectReason.OUT_OF_RANGE),
        ({"type": "click", "ts": AT, "user_id": "u", "item_id": "i"}, RejectReason.MISSING_FIELD),
    ]:
        for preset in ("segment", "snowplow", "ga4"):
            with pytest.raises(BadRecord, match=reason.value):
                read(InputMap(preset=preset), broken)  # type: ignore[arg-type]


def test_not_set_of_google_counts_as_absent() -> None:
    row = GA4_ROW | {"user_id": "(not set)", "items": [{"item_id": "A", "price": 3, "item_list_index": "(not set)"}]}
    [event] = read(InputMap(preset="ga4"), row).events
    assert (event.user_id, event.item_id, event.position) == ("1722.33", "A", None)
    unknown = read(InputMap(preset="ga4"), GA4_ROW | {"items": [{"item_id": "(not set)"}]})
    assert [fault.reason for fault in unknown.faults] == [RejectReason.MISSING_ITEM]


@pytest.mark.parametrize("ts", [0, -1, 946_684_799, "0", 10**20])
def test_number_that_is_no_plausible_time_is_rejected(ts: object) -> None:
    mapped = read(InputMap(preset="segment"), VIEWED | {"timestamp": ts})
    assert [fault.reason for fault in mapped.faults] in ([RejectReason.TIME_TOO_OLD], [RejectReason.TIME_IN_FUTURE])


def test_values_of_a_preset_stay_beside_ones_own() -> None:
    own = InputMap(preset="segment", type=FieldMap("event", values={"Zzz": "view"}))
    assert [event.type for event in read(own, VIEWED | {"event": "Zzz"}).events] == ["view"]
    assert [event.type for event in read(own, ORDERED).events] == ["purchase", "purchase"]
    assert read(own, VIEWED | {"type": "page", "event": None}) == Mapped([], 1, [])
    assert told(read(InputMap(preset="segment", type="event"), VIEWED)) == [("view", "ada", AT, "tea-1")]


def test_repetition_of_a_record_without_id_has_the_same_id() -> None:
    first, second = (read(InputMap(preset="gorse"), GORSE).events[0].event_id for _ in range(2))
    other = read(InputMap(preset="gorse"), GORSE | {"ItemId": "pot-2"}).events[0].event_id
    assert first == second != other
    assert len(first) == 64


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        (InputMap(), "input.map has no user_id"),
        (InputMap(preset="segment", ts=""), "is not a path"),
        (InputMap(preset="segment", ts="a..b"), '"a..b" is not a path'),
        (InputMap(preset="segment", ts="a[x]"), "neither a number nor key=value"),
        (InputMap(preset="segment", user_id=FieldMap("a", form="s")), "only ts has a form"),
        (InputMap(preset="segment", item_id=FieldMap("a", other="ignore")), "only type has"),
        (InputMap(preset="segment", each=["a", "b"]), "must be within the entries of the first"),
        (InputMap(user_id="u", ts="t", type=FieldMap("e", other="ignore")), "needs values"),
    ],
)
def test_map_by_which_nothing_could_be_read_is_refused(own: InputMap, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint.replace("[", r"\[")):
        codec(own)


def test_map_is_refused_with_another_format_than_json() -> None:
    with pytest.raises(SettingsError, match="reads JSON"):
        codec_for(InputSettings("avro", map=InputMap(preset="segment")), lambda place: None)  # type: ignore[arg-type, return-value]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        ["", "ada", "Product Viewed", "Order Completed", "page", "EUR", "eur", "e", "2026-03-01T10:00:00Z"]
    ),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 7, 1_772_359_200, AT, AT * 1_000, 1.5, -0.0, 1e300]),
    st.text(max_size=80),
)
NAMES = st.sampled_from(["event", "messageId", "timestamp", "userId", "anonymousId", "context", "properties"])
INNER = st.sampled_from(
    ["product_id", "sku", "price", "quantity", "position", "currency", "query", "products", "sessionId"]
)
OBJECTS = st.dictionaries(INNER, VALUES, max_size=6)
MEMBERS = st.one_of(VALUES, OBJECTS, st.lists(st.one_of(OBJECTS, VALUES), max_size=3))


@given(st.dictionaries(NAMES, st.one_of(MEMBERS, st.dictionaries(INNER, MEMBERS, max_size=4)), max_size=7))
def test_both_ways_of_reading_agree(changed: dict[str, Any]) -> None:
    [segment] = PRESET_MAPS["segment"]
    nested = msgspec.structs.replace(segment, each=["properties", "properties.products"], item_id="properties.sku")
    for own in (segment, nested):
        quick, whole = Mapper(own), Mapper(own)
        assert quick._quick is not None
        whole._quick = None
        for record in (changed, VIEWED | changed, ORDERED | changed):
            raw = msgspec.json.encode(_encodable(record))
            assert _result(quick, raw) == _result(whole, raw)


def _encodable(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, dict):
        return {name: _encodable(one) for name, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, list) else value


def _result(mapper: Mapper, raw: bytes) -> object:
    try:
        events, ignored, faults = mapper(raw)
    except BadRecord as bad:
        return bad.reason
    return events, ignored, [fault.reason for fault in faults]
