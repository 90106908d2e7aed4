"""Reads a topic with records in several formats: the first byte determines the format of a record.

========  ==================================================================================================
``{``     JSON
0         framed as by Confluent's serialisers; if its schema is not one of the job's, it may contain JSON
any other plain records of the job's format
========  ==================================================================================================

No plain record starts with either of the two. Avro's start with the length of an id, doubled: even, and not 0 because
no id is empty; ``{`` is 123. Protobuf's start with a field's number and wire type: ``{`` would be field 15 as a group,
which none of our messages has, and no field has the number 0.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord, Codec, json_codec
from schemas.wire.naming import HEADER_BYTES, MAGIC, Named, looks_like_json, named_in_json

T = TypeVar("T")
Decode = Callable[[bytes], tuple[T, bool]]

JSON_START: Final = b"{"
_JSON_SPACE: Final = b" \t\r\n"


def codec_by_content(plain: Codec, framed: Codec | None = None) -> Codec:
    """The codec of records that are JSON, `plain` or `framed`; without `framed`, no schemas are known."""
    json = json_codec()
    return Codec(
        _decode_by_content(json.interaction, plain.interaction, framed.interaction if framed else _no_schema),
        _decode_by_content(json.consent, plain.consent, framed.consent if framed else _no_schema),
        _named(plain, framed),
    )


def _named(plain: Codec, framed: Codec | None) -> Callable[[bytes], Named | None]:
    """Try JSON first, framed or not: it needs no schema."""

    def named(raw: bytes) -> Named | None:
        by_name = named_in_json(raw) if looks_like_json(raw) else None
        if by_name is not None or raw[:1] == JSON_START:
            return by_name
        if raw[:1] == bytes([MAGIC]):
            return framed.named(raw) if framed else None
        return plain.named(raw)

    return named


def _no_schema(raw: bytes) -> tuple[T, bool]:
    raise BadRecord(RejectReason.UNKNOWN_SCHEMA)


def _decode_by_content(json: Decode[T], plain: Decode[T], framed: Decode[T]) -> Decode[T]:
    def decode(raw: bytes) -> tuple[T, bool]:
        if raw and raw[0] == JSON_START[0]:
            return json(raw)
        try:
            return framed(raw) if raw and raw[0] == MAGIC else plain(raw)
        except BadRecord as bad:
            text = _json_within(raw)
            if text is None:
                raise
            return _second_reading(json, text, bad)

    return decode


def _json_within(raw: bytes | None) -> bytes | None:
    """The JSON after white space, or in a frame: Confluent's serialiser for JSON Schema writes it like this."""
    if not raw:
        return None
    text = raw[HEADER_BYTES:] if raw[0] == MAGIC else raw.lstrip(_JSON_SPACE)
    return text if text.startswith(JSON_START) else None


def _second_reading(json: Decode[T], text: bytes, first: BadRecord) -> tuple[T, bool]:
    try:
        return json(text)
    except BadRecord as second:
        raise (first if second.reason is RejectReason.MALFORMED else second) from None
