"""What the decoder says about invalid data, in words for the people who wrote it."""

import re
from typing import Final

from schemas.ids import NAME_PATTERN
from schemas.model_versions import VERSION_PATTERN

LABEL_PATTERN: Final = r"^[A-Za-z0-9_.\-]*$(?!\n)"
CURRENCY_PATTERN: Final = r"^[A-Z]{3}$(?!\n)"
JURISDICTION_PATTERN: Final = r"^[A-Z0-9_.\-]+\*?$(?!\n)"
SHA256_PATTERN: Final = r"^[0-9a-f]{64}$"
REQUEST_PATTERN: Final = "^[0-9a-f-]+$"
PROJECT_PATTERN: Final = r"^[a-z][a-z0-9_]{0,63}$(?!\n)"
SLUG_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)"
# `(?!\n)` because Python's `$` also matches before a last line feed; in JSON Schema's dialect it changes nothing.
WORDS: Final = {
    NAME_PATTERN: "a name with a visible character and without control characters",
    LABEL_PATTERN: "ASCII letters, digits, dots, underscores and hyphens only",
    CURRENCY_PATTERN: "a currency as three capital letters",
    JURISDICTION_PATTERN: "capital letters, digits, dots, underscores and hyphens, with `*` at most at the end",
    SHA256_PATTERN: "64 hexadecimal digits in lower case",
    REQUEST_PATTERN: "hexadecimal digits and hyphens only",
    PROJECT_PATTERN: "1 to 64 of a-z, 0-9 and underscores, beginning with a letter",
    SLUG_PATTERN: "1 to 64 of a-z, 0-9, underscores and hyphens, not beginning with one of the last two",
    VERSION_PATTERN: "`default`, `online`, or a name, a slash and 64 hexadecimal digits in lower case",
}
"""By the patterns that settings and records of users must match."""
_EXPECTED: Final = re.compile(r"Expected `[^`]*` matching regex (?P<pattern>'.*?')(?= - at |$)")
_OBJECT: Final = re.compile(r"^Object (?:contains )?(?=missing required|unknown) ?")
_BY_TEXT: Final = {repr(pattern): f"Expected {words}" for pattern, words in WORDS.items()}


def described(error: Exception, example: str | None = None) -> str:
    """The message of a decoder's `error`; if a field is missing, it ends with where `example` is.

    >>> described(ValueError("Object missing required field `kafka`"), "deploy/gateway.toml")
    'missing required field `kafka` (for an example, see deploy/gateway.toml)'
    >>> described(ValueError(f"Expected `str` matching regex {CURRENCY_PATTERN!r} - at `$.currency`"))
    'Expected a currency as three capital letters - at `$.currency`'
    """
    text = _EXPECTED.sub(lambda found: _BY_TEXT.get(found["pattern"], found[0]), str(error))
    text = _OBJECT.sub("", text)
    return f"{text} (for an example, see {example})" if example and text.startswith("missing required") else text
