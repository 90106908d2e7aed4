"""Masks free text: replaces identifiers with tags such as ``[email]``.

``mask`` is pure and linear in the length of the text; `make masking` searches for the slowest text. A text with more
numbers than a search would have is not analysed and becomes a tag. All others are analysed as a reader sees them, not
as bytes: digits of any script, full-width letters, no-break spaces, typographic dashes and invisible characters make no
difference.

It finds e-mail addresses, phone numbers, payment cards, IBANs, IP addresses and the national ids of
:mod:`udfs.national_ids`. It does not find names and postal addresses: no pattern distinguishes them from product names.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from schemas.events import QUERY_LENGTH_MAX
from udfs.identifiers import DOT_WORDS, cards, emails, ibans, ip_addresses, written_out_emails
from udfs.national_ids import national_ids
from udfs.phones import phones
from udfs.spans import Finder, Span

MASKED_LENGTH_MAX: Final = QUERY_LENGTH_MAX
"""Characters of a masked text; the rest is cut off after masking."""
SCANNED_LENGTH_MAX: Final = 1_024
"""How many characters of a text are scanned."""
IDENTIFIER_LENGTH_MAX: Final = 320
"""Characters of the longest identifier: an e-mail address (RFC 5321: 64 + 1 + 255)."""
OWN_ID_LENGTH_MIN: Final = 4
"""Characters; shorter ids of the producer occur in too many words to be masked."""

NUMBERS_MAX: Final = 16
DIGITS_MAX: Final = 48
"""Numbers and digits of the longest text that is scanned; one with more of either becomes ``[numbers]``."""
OWN_IDS_MAX: Final = 16
"""Own ids in the longest text that is scanned; one with more of them becomes ``[id]``."""

_DIGITS_MIN: Final = 6
"""All identifiers except addresses have at least this many digits, as a British national insurance number has."""
_PRIORITY: Final = ("email", "iban", "card", "national-id", "ip", "phone", "numbers", "id")
"""Which kind to report when two overlap."""


class Plain(NamedTuple):
    """A text as a reader sees it, in lower case.

    `places[n]` is the original index of character `n`; None: all unchanged.
    """

    text: str
    places: list[int] | None


def _plain_character(code: int) -> str | None:
    """What a reader sees of a character, in lower case; None if it is invisible."""
    character = chr(code)
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category == "Cf" or 0xFE00 <= code <= 0xFE0F or code in (0x20E3, 0x034F):
        return None
    if category in ("Zs", "Zl", "Zp", "Cc"):
        return " "
    if category == "Pd" or character == "\u2212":
        return "-"
    if character in "\u066b\u3002\uff61\u2024":
        return "."
    if character in "\u0130\u0131":
        return "i"
    folded = unicodedata.normalize("NFKC", character)
    small = (folded if len(folded) == 1 and folded.isascii() else character).lower()
    return small if len(small) == 1 else character


def _plain_table() -> dict[int, str | None]:
    """The characters that change; digits, mathematical letters and invisible characters are all within these ranges."""
    codes = [*range(0x3100), *range(0xFE00, 0x10000), *range(0x10400, 0x20000)]
    codes += [*range(0xA600, 0xAC00), *range(0xE0000, 0xE0200)]
    return {code: plain for code in codes if (plain := _plain_character(code)) != chr(code)}


_PLAIN: Final = _plain_table()
_INVISIBLE: Final = frozenset(chr(code) for code, plain in _PLAIN.items() if plain is None)
_CHANGED: Final = frozenset(map(chr, _PLAIN)) - frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""Characters that change in more than their case."""
_REPLACED_MAX: Final = 12
"""Up to this many characters, replacing one by one is faster than translating the whole text."""
_SUSPECT: Final = re.compile("[@0-9]")
_NUMBER: Final = re.compile("[0-9]+")
_SIGNS_OF_WRITTEN_OUT: Final = (*DOT_WORDS, "(", "[", "{", "<")


def mask(text: str, own_ids: Sequence[str] = ()) -> str:
    """`text` with a tag in place of each identifier, at most :data:`MASKED_LENGTH_MAX` characters long.

    `own_ids` are the producer's ids of the user and things that the text belongs to: those of at least
    :data:`OWN_ID_LENGTH_MIN` characters become ``[id]``.

    >>> mask("red shoes for ada@example.org, call +1 212 555 0134")
    'red shoes for [email], call [phone]'
    >>> mask("iphone 15 pro 256gb"), mask("orders of customer-7", ["customer-7"])
    ('iphone 15 pro 256gb', 'orders of [id]')
    """
    scanned, plain = text[:SCANNED_LENGTH_MAX], plain_of(text)
    if _is_clean(plain.text) and not any(own_id in text for own_id in own_ids):
        return text[:MASKED_LENGTH_MAX]
    end = len(text)
    if end > SCANNED_LENGTH_MAX:
        plain = plain_of(scanned)
        # An identifier that begins after this index may be cut off. Invisible characters do not count.
        end = max(0, len(plain.text) - IDENTIFIER_LENGTH_MAX)
    return _replaced(scanned, [span for span in _find(scanned, plain, own_ids) if span.start < end], end)


def _is_clean(plain: str) -> bool:
    """A quick check that the text has no identifier; most searches end here."""
    return not _SUSPECT.search(plain) and not _may_be_written_out(plain)


def _may_be_written_out(text: str) -> bool:
    return any(map(text.__contains__, _SIGNS_OF_WRITTEN_OUT))


def _replaced(text: str, spans: list[Span], end: int) -> str:
    """The text up to `end` with tags, cut off before a tag that does not fit."""
    masked, place = "", 0
    for span in spans:
        masked += text[place : span.start]
        tag = f"[{span.kind}]"
        if len(masked) + len(tag) > MASKED_LENGTH_MAX:
            return masked[:MASKED_LENGTH_MAX]
        masked += tag
        place = span.end
    return (masked + text[place:end])[:MASKED_LENGTH_MAX]


def find(text: str, own_ids: Sequence[str] = ()) -> list[Span]:
    """The identifiers in `text`, in order; where several overlap, they are one."""
    return _find(text, plain_of(text), own_ids)


def _find(text: str, plain: Plain, own_ids: Sequence[str]) -> list[Span]:
    numbers = _NUMBER.findall(plain.text)
    digits = sum(map(len, numbers))
    if digits > DIGITS_MAX or len(numbers) > NUMBERS_MAX:
        # Checking them all would cost too much.
        return [Span(0, len(text), "numbers")]
    spans = [span for finder in _finders(plain.text, digits) for span in finder(plain.text)]
    if plain.places is not None:
        places = [*plain.places, len(text)]
        spans = [Span(places[span.start], places[span.end], span.kind) for span in spans]
    of_own = [span for own_id in set(own_ids) for span in islice(_own(text, own_id), OWN_IDS_MAX + 1)]
    if len(of_own) > OWN_IDS_MAX:
        return [Span(0, len(text), "id")]
    spans += of_own
    return _joined(sorted(spans))


def _own(text: str, name: str) -> Iterator[Span]:
    """Where the own id `name` occurs."""
    if len(name) >= OWN_ID_LENGTH_MIN:
        for start in _places_of(text, name):
            yield Span(start, start + len(name), "id")


def _places_of(text: str, part: str) -> Iterator[int]:
    """Where `part` occurs. Uses no pattern: compiling one costs more than everything else done for a search."""
    start = text.find(part)
    while start >= 0:
        yield start
        start = text.find(part, start + len(part))


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in spans:
        if joined and span.start < joined[-1].end:
            last = joined.pop()
            span = Span(last.start, max(last.end, span.end), min(last.kind, span.kind, key=_PRIORITY.index))
        joined.append(span)
    return joined


def _finders(text: str, digits: int) -> Iterator[Finder]:
    """The finders whose minimum the text satisfies; it has this many digits."""
    if "@" in text:
        yield emails
    if _may_be_written_out(text):
        yield written_out_emails
    if "." in text or ":" in text:
        yield ip_addresses
    if digits >= _DIGITS_MIN:
        yield from (ibans, cards, national_ids, phones)


def plain_of(text: str) -> Plain:
    """`text` as a reader sees it.

    >>> plain_of("４１\\u200b１１\\u2011٠")
    Plain(text='4111-0', places=[0, 1, 3, 4, 5, 6])
    """
    if text.isascii() and text.isprintable():
        return Plain(text.lower(), None)
    characters = set(text)
    plain = _plain_text(text, characters & _CHANGED)
    if len(plain) == len(text):
        return Plain(plain, None)
    return Plain(plain, _places_without(text, characters & _INVISIBLE))


def _plain_text(text: str, changed: set[str]) -> str:
    """Equals a translation, but does not look up every character of a text that is not ASCII."""
    if len(changed) > _REPLACED_MAX:
        return text.translate(_PLAIN)
    for character in changed:
        text = text.replace(character, _PLAIN[ord(character)] or "")
    return text.lower()


def _places_without(text: str, invisible: set[str]) -> list[int]:
    """The indices of the visible characters."""
    if sum(map(text.count, invisible)) > _REPLACED_MAX:
        return [place for place, character in enumerate(text) if character not in invisible]
    places = list(range(len(text)))
    found = [place for each in invisible for place in _places_of(text, each)]
    for place in sorted(found, reverse=True):
        del places[place]
    return places
