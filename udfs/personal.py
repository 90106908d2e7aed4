"""Fields that must not hold personal data: item ids, segment names, and free text of consents and reads.

All of it is published or kept where pseudonyms stand: in `events`, popular lists, Redis keys and the audit trail.
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
    """Whether masking would find something in an id of an item. With `numbers_are_items`, not in a bare row of digits.

    A UUID is drawn by chance, and one in a thousand has a row of digits in it that reads like a phone number.

    >>> [holds_identifier(text) for text in ("ada@example.org", "4111111111111111", "item-00001")]
    [True, True, False]
    >>> holds_identifier("4111111111111111", numbers_are_items=True)
    False
    """
    if _UUID.fullmatch(item_id) or (numbers_are_items and _NUMBER.fullmatch(item_id)):
        return False
    return bool(find(item_id))


def is_own_id(text: str, user_id: str, session_id: str | None) -> bool:
    """Whether `text` is the user's id, or that of the session; a session may have a number that an item has, too."""
    folded = text.casefold()
    return folded == user_id.casefold() or (
        session_id is not None and len(text) >= OWN_ID_LENGTH_MIN and folded == session_id.casefold()
    )


def mentions(text: str, own_ids: Sequence[str]) -> bool:
    """Whether :func:`masked` would find one of `own_ids` in `text`. A loop, because it is run for every event."""
    for own_id in own_ids:  # noqa: SIM110
        if own_id in text and (len(own_id) >= OWN_ID_LENGTH_MIN or own_id == text):
            return True
    return False


def masked(text: str, own_ids: Sequence[str] = ()) -> str:
    """`text` as :func:`udfs.masking.mask` gives it; one that is nothing but an own id, however short, is ``[id]``.

    >>> masked("eve", ["eve"]), masked("call for eve-1980", ["eve-1980"])
    ('[id]', 'call for [id]')
    """
    return OWN_ID_TAG if text in own_ids else mask(text, own_ids)


def mask_for_audit(text: str, own_ids: Sequence[str] = ()) -> str:
    """`text` as the audit trail may hold it."""
    return masked(text, own_ids)[:NAME_LENGTH_MAX]


def mask_optional_for_audit(text: str | None, own_ids: Sequence[str] = ()) -> str | None:
    """The same, where there may be none."""
    return None if text is None else mask_for_audit(text, own_ids)
