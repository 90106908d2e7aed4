"""Free text without what points at a person: identifiers give way to tags such as ``[email]``.

``mask`` is pure and linear in the length of the text. It looks at the text as a reader does, not as bytes: digits of
any script, full-width letters, no-break spaces, typographic dashes and invisible characters make no difference.

Found are e-mail addresses, phone numbers, payment cards, IBANs, IP addresses and the national ids of
:mod:`udfs.national_ids`. Names and postal addresses are not: no pattern tells them from what shops sell.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from schemas.events import QUERY_LENGTH_MAX
from udfs.identifiers import DOT_WORDS, cards, emails, ibans, ip_addresses, written_out_emails
from udfs.national_ids import national_ids
from udfs.phones import phones
from udfs.spans import Finder, Span

MASKED_LENGTH_MAX: Final = QUERY_LENGTH_MAX
"""Characters of a masked text; what goes beyond is cut, after masking."""
SCANNED_LENGTH_MAX: Final = 1_024
"""Characters of a text that are looked at."""
IDENTIFIER_LENGTH_MAX: Final = 320
"""Characters of the longest identifier: an e-mail address (RFC 5321: 64 + 1 + 255)."""
OWN_ID_LENGTH_MIN: Final = 4
"""Characters; a shorter id of the producer stands in too many words to be looked for."""

_DIGITS_MIN: Final = 6
"""No identifier but an address has fewer digits; a British national insurance number has six."""
_PRIORITY: Final = ("email", "iban", "card", "national-id", "ip", "phone", "id")
"""Which kind names a place where two overlap."""


class Plain(NamedTuple):
    """A text as a reader sees it. `places[n]` is where character `n` stood, and None where none has moved."""

    text: str
    places: list[int] | None


def _plain_character(code: int) -> str | None:
    """What a character beyond ASCII is to a reader; None if it cannot be seen."""
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
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) == 1 and folded.isascii() else character


def _plain_table() -> dict[int, str | None]:
    """Only the characters that change; digits, letters of mathematics and invisible ones end below these bounds."""
    codes = [*range(0x20), *range(0x7F, 0x3100), *range(0xFE00, 0x10000), *range(0x10400, 0x20000)]
    codes += [*range(0xA600, 0xAC00), *range(0xE0000, 0xE0200)]
    return {code: plain for code in codes if (plain := _plain_character(code)) != chr(code)}


_PLAIN: Final = _plain_table()
_INVISIBLE: Final = re.compile("[" + "".join(map(chr, (code for code, plain in _PLAIN.items() if plain is None))) + "]")
_NOT_PLAIN: Final = re.compile("[^ -~]")
_SUSPECT: Final = re.compile("[@0-9]")
_SIGNS_OF_WRITTEN_OUT: Final = (*DOT_WORDS, "(", "[", "{", "<")


def mask(text: str, own_ids: Sequence[str] = ()) -> str:
    """`text` with a tag in the place of each identifier, at most :data:`MASKED_LENGTH_MAX` characters long.

    `own_ids` are the producer's names for who and what the text belongs to: those of at least
    :data:`OWN_ID_LENGTH_MIN` characters become ``[id]``.

    >>> mask("red shoes for ada@example.org, call +1 212 555 0134")
    'red shoes for [email], call [phone]'
    >>> mask("iphone 15 pro 256gb"), mask("orders of customer-7", ["customer-7"])
    ('iphone 15 pro 256gb', 'orders of [id]')
    """
    if _is_clean(text) and not any(own_id in text for own_id in own_ids):
        return text[:MASKED_LENGTH_MAX]
    scanned = text[:SCANNED_LENGTH_MAX]
    end = len(text) if len(scanned) == len(text) else _end_of_certainty(scanned)
    return _replaced(scanned, [span for span in find(scanned, own_ids) if span.start < end], end)


def _end_of_certainty(scanned: str) -> int:
    """What begins behind this place may not have been seen whole. Invisible characters do not count as seen."""
    return max(0, len(plain_of(scanned).text) - IDENTIFIER_LENGTH_MAX)


def _is_clean(text: str) -> bool:
    """Whether nothing can be there, told without looking at what anything is: most searches end here."""
    seen = text if text.isascii() else text.translate(_PLAIN)
    return not _SUSPECT.search(seen) and not _may_be_written_out(seen)


def _may_be_written_out(text: str) -> bool:
    return any(map(text.lower().__contains__, _SIGNS_OF_WRITTEN_OUT))


def _replaced(text: str, spans: list[Span], end: int) -> str:
    """The text up to `end` with tags, cut before a tag that does not fit whole."""
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
    plain = plain_of(text)
    spans = [span for finder in _finders(plain.text) for span in finder(plain.text)]
    if plain.places is not None:
        places = [*plain.places, len(text)]
        spans = [Span(places[span.start], places[span.end], span.kind) for span in spans]
    for own_id in own_ids:
        if len(own_id) >= OWN_ID_LENGTH_MIN:
            spans += [Span(*match.span(), "id") for match in re.finditer(re.escape(own_id), text)]
    return _joined(sorted(spans))


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in spans:
        if joined and span.start < joined[-1].end:
            last = joined.pop()
            span = Span(last.start, max(last.end, span.end), min(last.kind, span.kind, key=_PRIORITY.index))
        joined.append(span)
    return joined


def _finders(text: str) -> Iterator[Finder]:
    """Those whose least is there."""
    if "@" in text:
        yield emails
    if _may_be_written_out(text):
        yield written_out_emails
    if text.count(".") > 2 or text.count(":") > 1:
        yield ip_addresses
    if sum(map(text.count, "0123456789")) >= _DIGITS_MIN:
        yield from (ibans, cards, national_ids, phones)


def plain_of(text: str) -> Plain:
    """`text` as a reader sees it.

    >>> plain_of("４１\\u200b１１\\u2011٠")
    Plain(text='4111-0', places=[0, 1, 3, 4, 5, 6])
    """
    if not _NOT_PLAIN.search(text):
        return Plain(text, None)
    places = None
    if _INVISIBLE.search(text):
        places = [place for place, character in enumerate(text) if not _INVISIBLE.match(character)]
    return Plain(text.translate(_PLAIN), places)
