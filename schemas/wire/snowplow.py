"""Snowplow's enriched events as tab-separated values, turned into the JSON that its Analytics SDKs make of them.

Source: Snowplow's canonical event model, and the transformation described with the Analytics SDKs: the member of a
self-describing entity is named by its vendor, name and major version.
"""

import re
from typing import Any, Final

import msgspec

from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord

COLUMNS: Final = (  # noqa: SIM905 - a table, read as one
    "app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker "
    "v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid "
    "geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp ip_organization "
    "ip_domain ip_netspeed page_url page_title page_referrer page_urlscheme page_urlhost page_urlport page_urlpath "
    "page_urlquery page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery "
    "refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term mkt_content mkt_campaign "
    "contexts se_category se_action se_label se_property se_value unstruct_event tr_orderid tr_affiliation tr_total "
    "tr_tax tr_shipping tr_city tr_state tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity "
    "pp_xoffset_min pp_xoffset_max pp_yoffset_min pp_yoffset_max useragent br_name br_family br_version br_type "
    "br_renderengine br_lang br_features_pdf br_features_flash br_features_java br_features_director "
    "br_features_quicktime br_features_realplayer br_features_windowsmedia br_features_gears br_features_silverlight "
    "br_cookies br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer os_timezone dvce_type "
    "dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height tr_currency tr_total_base "
    "tr_tax_base tr_shipping_base ti_currency ti_price_base base_currency geo_timezone mkt_clickid mkt_network "
    "etl_tags dvce_sent_tstamp refr_domain_userid refr_dvce_tstamp derived_contexts domain_sessionid derived_tstamp "
    "event_vendor event_name event_format event_version event_fingerprint true_tstamp"
).split()
"""The columns of an enriched event, in their order."""

_SCHEMA: Final = re.compile(r"iglu:([A-Za-z0-9_.-]+)/([A-Za-z0-9_-]+)/jsonschema/(\d+)-\d+-\d+")
_CAPITALS: Final = re.compile(r"([^A-Z_])([A-Z])")


class _Described(msgspec.Struct):
    schema: str
    data: Any = None


_decode_one: Final = msgspec.json.Decoder(_Described).decode


class _Entities(msgspec.Struct):
    data: list[_Described]


_decode_many: Final = msgspec.json.Decoder(_Entities).decode


def is_tsv(raw: bytes) -> bool:
    """Whether an enriched event is tab-separated, not JSON."""
    return not raw.lstrip().startswith(b"{")


def record_of_tsv(raw: bytes) -> dict[str, Any]:
    """The members of an enriched event; columns without a value are left out. Raises :class:`BadRecord`."""
    try:
        columns = raw.decode().rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        raise BadRecord(RejectReason.BAD_ENCODING) from None
    if len(columns) < len(COLUMNS):
        raise BadRecord(RejectReason.MALFORMED)
    record: dict[str, Any] = {name: text for name, text in zip(COLUMNS, columns, strict=False) if text}
    try:
        for name in ("contexts", "derived_contexts"):
            if text := record.pop(name, None):
                for entity in _decode_many(text).data:
                    record.setdefault(_member("contexts", entity.schema), []).append(entity.data)
        if text := record.pop("unstruct_event", None):
            event = msgspec.convert(_decode_one(text).data, _Described)
            record[_member("unstruct_event", event.schema)] = event.data
    except (ValueError, RecursionError):
        raise BadRecord(RejectReason.MALFORMED) from None
    return record


def _member(prefix: str, schema: str) -> str:
    """
    >>> _member("contexts", "iglu:com.acme/WebPage/jsonschema/1-0-2")
    'contexts_com_acme_web_page_1'
    """
    found = _SCHEMA.fullmatch(schema)
    if found is None:
        raise ValueError("not the name of a schema")
    vendor, name, major = found.groups()
    snake = _CAPITALS.sub(r"\1_\2", name).replace("-", "_").lower()
    return f"{prefix}_{vendor.replace('.', '_').replace('-', '_').lower()}_{snake}_{major}"
