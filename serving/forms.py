"""Validates records before a frontend sends them, as the job will validate them."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from schemas.errors import InvalidRecord
from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord, bytes_max_of

T = TypeVar("T")
UNKNOWN_FIELD: Final = "unknown_field"


class Form(Generic[T]):
    """The form of one kind of record, which complaints call `name`.

    `decode` is the job's: the record and whether it has fields that are not known. `bounds` is the type whose bounds
    tell what is wrong, `details` what is said of a reason instead, `invalid` what is raised.
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
            RejectReason.EMPTY_VALUE: "there is nothing",
            RejectReason.TOO_LARGE: f"{name} have at most {bytes_max_of(bounds)} bytes",
            RejectReason.MISSING_USER: "`user_id` is missing or empty",
            **details,
        }

    def read(self, raw: bytes) -> T:
        """The record in the JSON `raw`; raises :class:`InvalidRecord`. A field that is not known is an error."""
        try:
            record, unknown_fields = self._decode(raw)
        except BadRecord as error:
            detail = self._details.get(error.reason) or self._complaint(raw)
            raise self._invalid(error.reason.value, detail) from None
        if unknown_fields:
            raise self._invalid(UNKNOWN_FIELD, f"{self._name} have no such field")
        return record

    def encoded(self, record: T) -> bytes:
        """The JSON of `record`; raises :class:`InvalidRecord` for text that has none."""
        try:
            return msgspec.json.encode(record)
        except UnicodeEncodeError:
            raise self._invalid(RejectReason.BAD_ENCODING.value, "a text is not valid Unicode") from None

    def _complaint(self, raw: bytes) -> str:
        """What is wrong with `raw`, by field, and without any of its values."""
        try:
            self._check(raw)
        except msgspec.ValidationError as error:
            text, at, place = str(error).rpartition(" - at ")
            # The one message with a value in it.
            return (
                f"not one of the values that are allowed{at}{place}" if text.startswith("Invalid enum") else str(error)
            )
        except (ValueError, RecursionError):
            pass
        return "this is not JSON as it should be"
