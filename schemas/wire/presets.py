"""The maps of known formats. Sources: each format's own documentation, named beside its map."""

from collections.abc import Mapping
from typing import Final

from schemas.wire.map_settings import FieldMap, InputMap, TargetType

_SEGMENT_EVENTS: Final[Mapping[str, TargetType]] = {
    "Product Viewed": "view",
    "Product Clicked": "click",
    "Product List Viewed": "impression",
    "Products Searched": "search",
    "Product Added": "add_to_cart",
    "Order Completed": "purchase",
    "Product Reviewed": "rating",
}
_GA4_EVENTS: Final[Mapping[str, TargetType]] = {
    "view_item": "view",
    "select_item": "click",
    "view_item_list": "impression",
    "search": "search",
    "view_search_results": "search",
    "add_to_cart": "add_to_cart",
    "purchase": "purchase",
}
_OWN_NAMES: Final[Mapping[str, TargetType]] = {
    "impression": "impression",
    "view": "view",
    "click": "click",
    "scroll": "scroll",
    "dwell": "dwell",
    "search": "search",
    "add_to_cart": "add_to_cart",
    "purchase": "purchase",
    "rating": "rating",
}

# Segment's spec, E-commerce (v2); RudderStack's event spec has the same names.
_SEGMENT: Final = InputMap(
    each="properties.products",
    event_id="messageId",
    type=FieldMap("event", values=dict(_SEGMENT_EVENTS), other="ignore"),
    ts=["timestamp", "originalTimestamp", "receivedAt"],
    user_id=["userId", "anonymousId"],
    session_id=["context.sessionId", "properties.session_id"],
    item_id=["properties.product_id", "properties.sku"],
    position="properties.position",
    value=["properties.rating", "properties.price"],
    currency="properties.currency",
    quantity="properties.quantity",
    query="properties.query",
)

# Google Analytics 4, BigQuery Export schema: one row an event.
_GA4_BIGQUERY: Final = InputMap(
    each="items",
    type=FieldMap("event_name", values=dict(_GA4_EVENTS), other="ignore"),
    ts=FieldMap("event_timestamp", form="us"),
    user_id=["user_id", "user_pseudo_id"],
    session_id=[
        "event_params[key=ga_session_id].value.int_value",
        "event_params[key=ga_session_id].value.string_value",
    ],
    item_id="items.item_id",
    position=["items.item_list_index"],
    value="items.price",
    currency="event_params[key=currency].value.string_value",
    quantity="items.quantity",
    query="event_params[key=search_term].value.string_value",
)

# Google Analytics 4, Measurement Protocol: a request has up to 25 events.
_GA4_PROTOCOL: Final = InputMap(
    each=["events", "events.params.items"],
    type=FieldMap("events.name", values=dict(_GA4_EVENTS), other="ignore"),
    ts=FieldMap(["events.timestamp_micros", "timestamp_micros"], form="us"),
    user_id=["user_id", "client_id", "app_instance_id"],
    session_id="events.params.session_id",
    item_id="events.params.items.item_id",
    position="events.params.items.index",
    value="events.params.items.price",
    currency="events.params.currency",
    quantity="events.params.items.quantity",
    query="events.params.search_term",
)

# CloudEvents 1.0.2, JSON event format. What an event is about is data of the sender: these are the usual names.
_CLOUDEVENTS: Final = InputMap(
    event_id="id",
    type=FieldMap(["data.type", "data.event_type", "data.event", "type"]),
    ts=["time", "data.ts", "data.timestamp"],
    user_id=["data.user_id", "data.userId", "data.user"],
    session_id=["data.session_id", "data.sessionId"],
    item_id=["data.item_id", "data.itemId", "data.product_id", "data.productId", "data.item"],
    position="data.position",
    value=["data.value", "data.rating", "data.price"],
    currency="data.currency",
    quantity="data.quantity",
    surface="data.surface",
    request_id="data.request_id",
    query=["data.query", "data.search_term"],
    scroll_pct="data.scroll_pct",
    dwell_ms="data.dwell_ms",
)

# Snowplow's Snowtype e-commerce accelerator (snowplow_ecommerce_action 1-0-x, product 1-0-0), enriched events as the
# Analytics SDKs turn them into JSON.
_SNOWPLOW: Final = InputMap(
    each="contexts_com_snowplowanalytics_snowplow_ecommerce_product_1",
    event_id="event_id",
    type=FieldMap(
        "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1.type",
        values={
            "product_view": "view",
            "list_click": "click",
            "list_view": "impression",
            "add_to_cart": "add_to_cart",
            "transaction": "purchase",
        },
        other="ignore",
    ),
    ts=["derived_tstamp", "collector_tstamp"],
    user_id=["user_id", "domain_userid", "network_userid"],
    session_id="domain_sessionid",
    item_id="contexts_com_snowplowanalytics_snowplow_ecommerce_product_1.id",
    position="contexts_com_snowplowanalytics_snowplow_ecommerce_product_1.position",
    value="contexts_com_snowplowanalytics_snowplow_ecommerce_product_1.price",
    currency="contexts_com_snowplowanalytics_snowplow_ecommerce_product_1.currency",
    quantity="contexts_com_snowplowanalytics_snowplow_ecommerce_product_1.quantity",
)

# Amazon Personalize Events, PutEvents. `properties` is a JSON text there, so a value within it cannot be read.
_PERSONALIZE: Final = InputMap(
    each="eventList",
    event_id="eventList.eventId",
    type=FieldMap(
        "eventList.eventType",
        values={
            **_OWN_NAMES,
            "View": "view",
            "Click": "click",
            "Purchase": "purchase",
            "AddToCart": "add_to_cart",
            "Watch": "view",
            "Rating": "rating",
        },
        other="ignore",
    ),
    ts="eventList.sentAt",
    user_id=["userId", "sessionId"],
    session_id="sessionId",
    item_id="eventList.itemId",
    value="eventList.eventValue",
)

# Gorse, POST /api/feedback: one entry of the array a record.
_GORSE: Final = InputMap(
    type=FieldMap(
        "FeedbackType",
        values={
            **_OWN_NAMES,
            "read": "view",
            "like": "rating",
            "star": "rating",
            "buy": "purchase",
            "cart": "add_to_cart",
        },
        other="ignore",
    ),
    ts="Timestamp",
    user_id="UserId",
    item_id="ItemId",
    value="Value",
)

# Metarank, interaction and ranking events.
_METARANK: Final = InputMap(
    event_id="id",
    type=FieldMap("type", values={**_OWN_NAMES, "cart": "add_to_cart"}, other="ignore"),
    ts="timestamp",
    user_id=["user", "session"],
    session_id="session",
    item_id="item",
    value=["fields[name=rating].value", "fields[name=price].value"],
)

PRESET_MAPS: Final[Mapping[str, tuple[InputMap, ...]]] = {
    "cloudevents": (_CLOUDEVENTS,),
    "ga4": (_GA4_BIGQUERY, _GA4_PROTOCOL),
    "gorse": (_GORSE,),
    "metarank": (_METARANK,),
    "personalize": (_PERSONALIZE,),
    "rudderstack": (_SEGMENT,),
    "segment": (_SEGMENT,),
    "snowplow": (_SNOWPLOW,),
}
"""By name: a format of several shapes has several maps, of which the first that finds events in a record counts."""
