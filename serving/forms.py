"""Validates records before a frontend sends them, exactly as the job will."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from schemas.decoding import described
from schemas.errors import InvalidRecord
from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord, bytes_max_of

T = TypeVar("T")
UNKNOWN_FIELD: Final = "unknown_field"


class Form(Generic[T]):
    """Validates one kind of record, called `name` in error messages.

    `decode` is the job's decoder: returns the record and whether it has unknown fields. `bounds` is the type used to
    describe errors, `details` replaces the description for some reasons, `invalid` is the exception to raise.
    """

    def __init__(
        self,
        name: str,
        decode: Callable[[bytes], tuple[T, bool]],
        bounds: type[Any],
        invalid: type[InvalidRecord],
        details: Mapping[RejectReason, str],
    ) -> None:
        self._name, self._decode, self._invalid = name, decode, invalid
        self._check = msgspec.json.Decoder(bounds).decode
        self._details = {
            RejectReason.EMPTY_VALUE: "the record is empty",
            RejectReason.TOO_LARGE: f"{name} have at most {bytes_max_of(bounds)} bytes",
            RejectReason.MISSING_USER: "`user_id` is missing or empty",
            **details,
        }

    def read(self, raw: bytes) -> T:
        """Decode the record in the JSON `raw`; raises :class:`InvalidRecord`. An unknown field is an error."""
        try:
            record, unknown_fields = self._decode(raw)
        except BadRecord as error:
            detail = self._details.get(error.reason) or self._complaint(raw)
            raise self._invalid(error.reason.value, detail) from None
        if unknown_fields:
            raise self._invalid(UNKNOWN_FIELD, f"{self._name} have no such field")
        return record

    def encoded(self, record: T) -> bytes:
        """Encode `record` as JSON; raises :class:`InvalidRecord` for text that cannot be encoded."""
        try:
            return msgspec.json.encode(record)
        except UnicodeEncodeError:
            raise self._invalid(RejectReason.BAD_ENCODING.value, "a text is not valid Unicode") from None

    def _complaint(self, raw: bytes) -> str:
        """Describe what is wrong with `raw`, by field, without its values."""
        try:
            self._check(raw)
        except msgspec.ValidationError as error:
            text, at, place = described(error).rpartition(" - at ")
            # This is the only message that contains a value.
            return (
                f"not one of the values that are allowed{at}{place}"
                if text.startswith("Invalid enum")
                else f"{text}{at}{place}"
            )
        except (ValueError, RecursionError):
            pass
        return "this is not valid JSON for the record"
