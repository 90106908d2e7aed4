"""What is wrong with a record that a frontend sends: by field, and without any of its values."""

from collections.abc import Callable
from typing import Any

import msgspec


def complaint(raw: bytes, decode: Callable[[bytes], Any]) -> str:
    """What `decode`, which bounds all fields, has against the JSON `raw`."""
    try:
        decode(raw)
    except msgspec.ValidationError as error:
        text, at, place = str(error).rpartition(" - at ")
        # The one message with a value in it.
        return f"not one of the values that are allowed{at}{place}" if text.startswith("Invalid enum") else str(error)
    except (ValueError, RecursionError):
        pass
    return "this is not JSON as it should be"
