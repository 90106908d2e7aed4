"""National ids of eleven countries, found by shape and, where there is one, by check digit.

Without a check digit (US, UK) the shape has to be the written one, or a word has to say what the number is.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from udfs import check_digits as check
from udfs.spans import FLAGS, NOT_GOING_ON, NOT_INSIDE_A_WORD, Span, is_list_of_sizes, is_trade_number

_SEPARATORS: Final = re.compile(r"[^0-9A-Z]")
_DIGITS: Final = re.compile(r"[0-9]+")
_NINO_UNUSED: Final = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})
_SSN_WORD: Final = r"(?:ssn|itin|social(?: security)?(?: number)?)[ :#]*"
_CF_DIGIT: Final = "[0-9LMNPQRSTUV]"


class _Kind(NamedTuple):
    """`shape` has the id as its group 1; `holds` takes it in capitals without separators."""

    shape: re.Pattern[str]
    holds: Callable[[str], bool]


def _us_ssn(digits: str) -> bool:
    """Areas 000 and 666 are nobody's; from 900 on they are tax numbers (ITIN), which only some groups are given to."""
    area, group, serial = int(digits[:3]), int(digits[3:5]), int(digits[5:])
    if area >= 900:
        return 50 <= group <= 65 or 70 <= group <= 88 or group in (90, 91, 92) or group >= 94
    return area not in (0, 666) and group > 0 and serial > 0


def _uk_nino(text: str) -> bool:
    """QQ is never issued and is what forms show as their example; it is masked like the rest."""
    if text[:2] == "QQ":
        return True
    return text[0] not in "DFIQUV" and text[1] not in "DFIOQUV" and text[:2] not in _NINO_UNUSED


def _fr_nir(text: str) -> bool:
    month = int(text[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42 or month >= 50) and check.nir(text)


def _shape(body: str, before: str = NOT_INSIDE_A_WORD, after: str = NOT_GOING_ON) -> re.Pattern[str]:
    """In a lookahead, so that a candidate that fails does not hide one that starts inside it."""
    return re.compile(f"{before}(?=({body}){after})", FLAGS)


_KINDS: Final = (
    _Kind(_shape(r"[0-9]{3}([ -])[0-9]{2}\2[0-9]{4}"), _us_ssn),
    _Kind(re.compile(rf"\b{_SSN_WORD}([0-9]{{9}}){NOT_GOING_ON}", FLAGS), _us_ssn),
    _Kind(_shape(r"[A-Z]{2}[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[A-D]"), _uk_nino),
    _Kind(_shape(r"[0-9]{2}[ /]?[0-9]{3}[ /]?[0-9]{3}[ /]?[0-9]{3}"), check.steuer_id),
    _Kind(
        _shape(r"[12][ .-]?[0-9]{2}[ .-]?[0-9]{2}[ .-]?(?:[0-9]{2}|2[AB])(?:[ .-]?[0-9]{3}){2}[ .-]?[0-9]{2}"),
        _fr_nir,
    ),
    _Kind(_shape(r"(?:[0-9]{8}|[0-9]{2}\.[0-9]{3}\.[0-9]{3})[ -]?[A-Z]"), check.dni),
    _Kind(_shape(r"[XYZ][ -]?[0-9]{7}[ -]?[A-Z]"), check.dni),
    _Kind(
        _shape(rf"[A-Z]{{3}} ?[A-Z]{{3}} ?{_CF_DIGIT}{{2}}[A-EHLMPRST]{_CF_DIGIT}{{2}} ?[A-Z]{_CF_DIGIT}{{3}} ?[A-Z]"),
        check.codice_fiscale,
    ),
    # Three by three with spaces are sizes to choose from far more often, and one in eleven of them passes the check.
    _Kind(_shape(r"[0-9]{9}|[0-9]{4}[. ][0-9]{2}[. ][0-9]{3}|[0-9]{3}([.-])[0-9]{3}\2[0-9]{3}"), check.bsn),
    _Kind(_shape(r"[0-9]{11}"), check.pesel),
    _Kind(_shape(r"[0-9]{3}[. ]?[0-9]{3}[. ]?[0-9]{3}[ ./-]?[0-9]{2}"), check.cpf),
    _Kind(_shape(r"(?:19|20)?[0-9]{6}[ +-]?[0-9]{4}"), check.personnummer),
    # Not a part of a longer row of fours: that is a card with a wrong check digit.
    _Kind(
        _shape(
            r"[2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}",
            before=rf"(?<![0-9]{{4}}[ -]){NOT_INSIDE_A_WORD}",
            after=rf"{NOT_GOING_ON}(?![ -][0-9]{{4}}{NOT_GOING_ON})",
        ),
        check.verhoeff,
    ),
)


def national_ids(text: str) -> Iterator[Span]:
    """The national ids in a plain text."""
    for shape, holds in _KINDS:
        for match in shape.finditer(text):
            start, end = match.span(1)
            compact = _SEPARATORS.sub("", match[1].upper())
            if holds(compact) and not _is_something_else(text, start, end):
                yield Span(start, end, "national-id")


def _is_something_else(text: str, start: int, end: int) -> bool:
    written = text[start:end]
    return is_trade_number(text, start, end) or (" " in written and is_list_of_sizes(_DIGITS.findall(written)))
