"""The characters allowed in ids and in free texts: one rule for producers, job, gateway, models and catalogue.

An id is identified by its bytes. It is not normalised: `é` as one code point and as two are two users, as they are two
keys to Kafka, so producers must always write an id in the same way. Scripts and emoji need joiners, no-break spaces,
direction marks, variation selectors, tags and private-use letters, so ids may contain them; unassigned characters may
become emoji.

Rejected are characters that a producer can only send by mistake or to deceive readers of a log: control characters,
surrogates, line and paragraph separators, embeddings, overrides and isolates of direction, a byte order mark,
annotation marks, deprecated format characters, and noncharacters.
"""

import re
from typing import Final

_CONTROLS_AND_BREAKS: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_DIRECTIONS: Final = r"\u202a-\u202e\u2066-\u2069"
_DEPRECATED_AND_MARKS: Final = r"\u206a-\u206f\ufeff\ufff9-\ufffb" + "\U000e0001"
_NONCHARACTERS: Final = r"\ufdd0-\ufdef\ufffe\uffff" + "".join(
    f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 17)
)
_IN_NO_ID: Final = _CONTROLS_AND_BREAKS + _DIRECTIONS + _DEPRECATED_AND_MARKS + _NONCHARACTERS
_NOT_IN_IDS: Final = re.compile(f"[{_IN_NO_ID}]")
_NOT_IN_TEXTS: Final = re.compile(f"[{_CONTROLS_AND_BREAKS}]")

# As published, for JSON Schema's dialect (ECMAScript with `u`) and for Python's. `(?!\n)` because Python's `$` also
# matches before a last line feed; in ECMAScript it changes nothing.
ID_PATTERN: Final = f"^[^{_IN_NO_ID}]*$(?!\\n)"
TEXT_PATTERN: Final = f"^[^{_CONTROLS_AND_BREAKS}]*$(?!\\n)"
# White space, joiners, direction marks, variation selectors, tags and fillers: allowed in ids but invisible.
# The pattern needs no backtracking, so no text is slow to reject.
_INVISIBLE: Final = (
    r" \u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u202f\u205f-\u2065\u2800\u3000"
    r"\u3164\ufe00-\ufe0f\uffa0"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000\U000e0002-\U000e0fff"
)
NAME_PATTERN: Final = f"^[{_INVISIBLE}]*[^{_INVISIBLE}{_IN_NO_ID}][^{_IN_NO_ID}]*$(?!\\n)"
"""A text with at least one visible character, and only characters allowed in ids."""


def is_id(text: str) -> bool:
    """Whether all characters of `text` are allowed in ids; its length is limited elsewhere.

    >>> [is_id(text) for text in ("ada", "\U0001f469\u200d\U0001f680", "می\u200cروم", "a\u00a0b", "")]
    [True, True, True, True, True]
    >>> [is_id(text) for text in ("a\\nb", "a\u2028b", "a\u202eb", "\ufefftea", "\uffff")]
    [False, False, False, False, False]
    """
    return text.isprintable() or _NOT_IN_IDS.search(text) is None


def is_free_text(text: str) -> bool:
    """Whether `text` may have been typed or pasted: direction and other marks are allowed, controls are not."""
    return text.isprintable() or _NOT_IN_TEXTS.search(text) is None
