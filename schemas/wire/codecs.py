"""Decodes records into validated objects, or raises the reject reason. JSON is here; other formats have adapters.

A codec is a pair of functions, for interactions and for consent changes. For any bytes, they raise only
:class:`BadRecord`; every field of their results is bounded (see :mod:`schemas.events`).
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from schemas.consents import ConsentChange, LenientConsentChange
from schemas.events import (
    EVENT_TS_MAX,
    EVENT_TS_MIN,
    FUTURE_SKEW_MAX_MS,
    ITEM_REQUIRED,
    Interaction,
    LenientInteraction,
)
from schemas.ids import is_free_text, is_id
from schemas.rejects import RejectReason
from schemas.wire.naming import Named, is_ambiguous, may_mean_another_field, named_in_json
from schemas.wire.shapes import fields_of

S = TypeVar("S")
T = TypeVar("T")
PAYLOAD_BYTES_MAX: Final = 64 * 1024
CONSENT_BYTES_MAX: Final = 512 * 1024
"""The limit of a consent change, which may contain TCF and GPP strings of 64 KiB each."""


class BadRecord(Exception):  # noqa: N818 - a verdict on data, not an error of ours
    """Bytes that are not a valid record. Its text is the reason, and has none of the bytes.

    `request_id` is that of an event that could be decoded: raw, to be hashed before it is written anywhere.
    """

    def __init__(self, reason: RejectReason, request_id: str | None = None) -> None:
        super().__init__(reason.value)
        self.reason, self.request_id = reason, request_id


class Mapped(NamedTuple):
    """What a record of others holds: events, how many more are `ignored`, and why others are rejected."""

    events: list[Interaction]
    ignored: int
    faults: list[BadRecord]


class Codec(NamedTuple):
    """Reads the values of the raw topics. `interaction` and `consent` raise only :class:`BadRecord`.

    The second part of their results is true if the record had unknown fields, which were dropped. `named` returns the
    users named by a consent change that `consent` rejected. `mapped` reads interactions instead, if settings map them.
    """

    interaction: Callable[[bytes], tuple[Interaction, bool]]
    consent: Callable[[bytes], tuple[ConsentChange, bool]]
    named: Callable[[bytes], Named | None] = named_in_json
    mapped: Callable[[bytes], Mapped] | None = None


def json_codec() -> Codec:
    """The codec for JSON, the default."""
    return Codec(
        _json(Interaction, LenientInteraction, check_interaction),
        _unambiguous(_json(ConsentChange, LenientConsentChange, check_consent)),
    )


def _unambiguous(decode: Callable[[bytes], tuple[T, bool]]) -> Callable[[bytes], tuple[T, bool]]:
    """For consents: of `"level":"none","level":"full"`, the decoder uses the last, but the first may be meant."""

    def decode_unambiguous(raw: bytes) -> tuple[T, bool]:
        decoded = decode(raw)
        try:
            ambiguous = is_ambiguous(raw)
        except (ValueError, RecursionError) as error:
            raise BadRecord(reason_of(error)) from None
        if ambiguous:
            raise BadRecord(RejectReason.REPEATED_FIELD)
        return decoded

    return decode_unambiguous


def check_names(fields: Iterable[str]) -> None:
    """Reject a consent in which an unknown field may be meant to be a known one."""
    if may_mean_another_field(fields):
        raise BadRecord(RejectReason.REPEATED_FIELD)


def _json(struct: type[T], lenient: type[T], check: Callable[[T], None]) -> Callable[[bytes], tuple[T, bool]]:
    decode = tolerant(msgspec.json.Decoder(struct).decode, msgspec.json.Decoder(lenient).decode, check)
    convert = tolerant(partial(msgspec.convert, type=struct), partial(msgspec.convert, type=lenient), check)
    bytes_max, integers = bytes_max_of(struct), integers_of(struct)

    def decode_sized(raw: bytes) -> tuple[T, bool]:
        check_size(raw, bytes_max)
        try:
            return decode(raw)
        except BadRecord as bad:
            if bad.reason is not RejectReason.WRONG_TYPE:
                raise
            fields = _with_whole_numbers(raw, integers)
            if fields is None:
                raise
        return convert(fields)

    return decode_sized


def integers_of(struct: type[Any]) -> frozenset[str]:
    """The names of the integer fields of `struct`."""
    return frozenset(field.name for field in fields_of(struct) if field.kind in ("int32", "int64"))


def _with_whole_numbers(raw: bytes, integers: frozenset[str]) -> dict[str, Any] | None:
    """The fields of the JSON `raw`, with integers written like `1.0` or `1e3` converted, or None if there are none.

    JSON Schema allows such integers. JavaScript, Python and spreadsheets write them after a division.
    """
    try:
        fields = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    whole = {
        name: int(value)
        for name in integers & fields.keys()
        if isinstance(value := fields[name], float) and value.is_integer()
    }
    return fields | whole if whole else None


def tolerant(
    strict: Callable[[S], T], lenient: Callable[[S], T], check: Callable[[T], None]
) -> Callable[[S], tuple[T, bool]]:
    """Decode strictly, which detects unknown fields, and leniently only if there are some."""

    def decode(raw: S) -> tuple[T, bool]:
        unknown_fields = False
        try:
            try:
                record = strict(raw)
            except msgspec.ValidationError as error:
                if not _is_unknown_field(error):
                    raise
                unknown_fields = True
                record = lenient(raw)
        except (ValueError, RecursionError) as error:
            raise BadRecord(reason_of(error)) from None
        check(record)
        return record, unknown_fields

    return decode


def bytes_max_of(struct: type[Any]) -> int:
    """The maximum size of a record of this type, in bytes, in any format."""
    return CONSENT_BYTES_MAX if issubclass(struct, ConsentChange) else PAYLOAD_BYTES_MAX


def check_size(raw: bytes | None, bytes_max: int) -> None:
    """Reject values that are empty or larger than `bytes_max` before parsing them."""
    if not raw:
        raise BadRecord(RejectReason.EMPTY_VALUE)
    if len(raw) > bytes_max:
        raise BadRecord(RejectReason.TOO_LARGE)


def check_interaction(event: Interaction) -> None:
    """Check what types cannot express: that types which need an item have one, and all characters."""
    if event.item_id is None:
        if event.type in ITEM_REQUIRED:
            raise BadRecord(RejectReason.MISSING_ITEM)
    elif not is_id(event.item_id):
        raise BadRecord(RejectReason.CONTROL_CHARACTER)
    if not (is_id(event.user_id) and is_id(event.event_id)):
        raise BadRecord(RejectReason.CONTROL_CHARACTER)
    if not (is_id(event.session_id or "") and is_id(event.request_id or "")):
        raise BadRecord(RejectReason.CONTROL_CHARACTER)
    if event.query is not None:
        _check_free_text(event.query)
    if event.context:
        for text in event.context.values():
            _check_free_text(text)


def _check_free_text(text: str) -> None:
    if not is_free_text(text):
        raise BadRecord(RejectReason.CONTROL_CHARACTER)


def check_event_time(ts: int, now_ms: int) -> None:
    """Whether `ts` is plausible for an event that arrives now; seconds or µs instead of ms are not."""
    if ts > now_ms + FUTURE_SKEW_MAX_MS or ts > EVENT_TS_MAX:
        raise BadRecord(RejectReason.TIME_IN_FUTURE)
    if ts < EVENT_TS_MIN:
        raise BadRecord(RejectReason.TIME_TOO_OLD)


def check_consent(change: ConsentChange) -> None:
    """Check that the user id has only allowed characters."""
    if not is_id(change.user_id):
        raise BadRecord(RejectReason.CONTROL_CHARACTER)


def _is_unknown_field(error: msgspec.ValidationError) -> bool:
    return str(error).startswith("Object contains unknown field")


_PLACE = re.compile(r"at `\$\.(\w+)|required field `(\w+)`")
_MISSING: Final = {"user_id": RejectReason.MISSING_USER, "item_id": RejectReason.MISSING_ITEM}
_RANGE_WORDS: Final = ("out of range", " of length ", " >= ", " <= ", "matching regex")


def reason_of(error: Exception) -> RejectReason:
    """The reject reason for a decoder's error, from its type and the field it names; never from a value.

    >>> reason_of(msgspec.ValidationError("Object missing required field `user_id`")).value
    'missing_user'
    """
    if isinstance(error, RecursionError):
        return RejectReason.NESTED_TOO_DEEPLY
    if isinstance(error, UnicodeDecodeError):
        return RejectReason.BAD_ENCODING
    if isinstance(error, msgspec.ValidationError):
        return _validation_reason(str(error))
    return RejectReason.MALFORMED


def _validation_reason(message: str) -> RejectReason:
    if message.startswith("Invalid enum value"):  # the only message that contains a value: check its end only
        return RejectReason.UNKNOWN_TYPE if message.endswith("at `$.type`") else RejectReason.OUT_OF_RANGE
    place = _PLACE.search(message)
    field = (place[1] or place[2]) if place else None
    absent = "missing required" in message or "got `null`" in message or "length >= 1" in message
    if absent and field in _MISSING:
        return _MISSING[field]
    if "missing required" in message:
        return RejectReason.MISSING_FIELD
    if any(word in message for word in _RANGE_WORDS):
        return RejectReason.OUT_OF_RANGE
    return RejectReason.WRONG_TYPE
