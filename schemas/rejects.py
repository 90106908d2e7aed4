"""Rejects: why a record was rejected, and where it is; never its payload."""

from enum import StrEnum

import msgspec

from schemas.log_lines import HTTP_REQUEST, SHOWN_REQUEST


class RejectReason(StrEnum):
    """All reasons for which an interaction, a consent change or a command goes to `dead-letters`."""

    EMPTY_VALUE = "empty_value"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    BAD_ENCODING = "bad_encoding"
    NESTED_TOO_DEEPLY = "nested_too_deeply"
    UNKNOWN_SCHEMA = "unknown_schema"
    MISSING_FIELD = "missing_field"
    MISSING_USER = "missing_user"
    MISSING_ITEM = "missing_item"
    UNKNOWN_TYPE = "unknown_type"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    CONTROL_CHARACTER = "control_character"
    TIME_IN_FUTURE = "time_in_future"
    TIME_TOO_OLD = "time_too_old"
    TOO_LATE = "too_late"
    NOT_CARRIED_OUT = "not_carried_out"
    PERSONAL_ITEM = "personal_item"
    REPEATED_FIELD = "repeated_field"
    TOO_MANY_USERS = "too_many_users"


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The origin of a record: enough to find it again while the raw topic still has it."""

    topic: str
    partition: int
    offset: int
    append_ts: int


class Reject(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record that was rejected. `schema_v` is 0 if the record did not contain it.

    For the log, as keyed hashes: `sent_by` is the id of the HTTP request that sent it, `shown` the `request_id` in it.
    """

    reason: RejectReason
    origin: Origin
    schema_v: int = 0
    sent_by: str | None = None
    shown: str | None = None

    def log_fields(self) -> dict[str, str | int | None]:
        """Its reason, coordinates and requests, as fields of a log line."""
        origin = self.origin
        return {
            "event.reason": self.reason.value,
            "kafka.topic": origin.topic,
            "kafka.partition": origin.partition,
            "kafka.offset": origin.offset,
            HTTP_REQUEST: self.sent_by,
            SHOWN_REQUEST: self.shown,
        }


class DeadLetter(msgspec.Struct, frozen=True):
    """A :class:`Reject` as stored in the `dead-letters` topic (JSON)."""

    reason: RejectReason
    topic: str
    partition: int
    offset: int
    time: int
    schema_v: int


def dead_letter(reject: Reject) -> bytes:
    """The JSON bytes of `reject` for the `dead-letters` topic."""
    origin = reject.origin
    return msgspec.json.encode(
        DeadLetter(reject.reason, origin.topic, origin.partition, origin.offset, origin.append_ts, reject.schema_v)
    )
