"""Guards fields that must not hold personal data: item ids, segment names, and free text of consents and reads.

All of them are published, or stored next to pseudonyms: in `events`, popular lists, Redis keys and the audit trail.
"""

import re
from collections.abc import Sequence
from typing import Final

from schemas.audit import NAME_LENGTH_MAX
from udfs.masking import OWN_ID_LENGTH_MIN, find, mask

OWN_ID_TAG: Final = "[id]"
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+", re.ASCII)


def holds_identifier(item_id: str, numbers_are_items: bool = False) -> bool:
    """Whether masking would find an identifier in an item id; with `numbers_are_items`, never in digits only.

    UUIDs are exempt: they are random, and one in a thousand contains digits that look like a phone number.

    >>> [holds_identifier(text) for text in ("ada@example.org", "4111111111111111", "item-00001")]
    [True, True, False]
    >>> holds_identifier("4111111111111111", numbers_are_items=True)
    False
    """
    if _UUID.fullmatch(item_id) or (numbers_are_items and _NUMBER.fullmatch(item_id)):
        return False
    return bool(find(item_id))


def is_own_id(text: str, user_id: str, session_id: str | None) -> bool:
    """Whether `text` is the user's or the session's id. Short session ids are exempt: an item may have the same."""
    folded = text.casefold()
    return folded == user_id.casefold() or (
        session_id is not None and len(text) >= OWN_ID_LENGTH_MIN and folded == session_id.casefold()
    )


def mentions(text: str, own_ids: Sequence[str]) -> bool:
    """Whether :func:`masked` would find one of `own_ids` in `text`. A loop, because it runs for every event."""
    for own_id in own_ids:  # noqa: SIM110
        if own_id in text and (len(own_id) >= OWN_ID_LENGTH_MIN or own_id == text):
            return True
    return False


def masked(text: str, own_ids: Sequence[str] = ()) -> str:
    """Apply :func:`udfs.masking.mask`; a text that equals an own id, however short, becomes ``[id]``.

    >>> masked("eve", ["eve"]), masked("call for eve-1980", ["eve-1980"])
    ('[id]', 'call for [id]')
    """
    return OWN_ID_TAG if text in own_ids else mask(text, own_ids)


def mask_for_audit(text: str, own_ids: Sequence[str] = ()) -> str:
    """`text` as the audit trail may store it."""
    return masked(text, own_ids)[:NAME_LENGTH_MAX]


def mask_optional_for_audit(text: str | None, own_ids: Sequence[str] = ()) -> str | None:
    """As :func:`mask_for_audit`, for a text that may be None."""
    return None if text is None else mask_for_audit(text, own_ids)
