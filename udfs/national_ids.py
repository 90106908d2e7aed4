"""National ids of eleven countries, found by shape and, where there is one, by check digit.

Ids without a check digit (US, UK) must have the usual separators, or a word before that names them.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from udfs import check_digits as check
from udfs.spans import NOT_GOING_ON, NOT_INSIDE_A_WORD, Span, is_list_of_sizes, is_trade_number

_SEPARATORS: Final = re.compile(r"[^0-9A-Z]")
_DIGITS: Final = re.compile(r"[0-9]+")
_NINO_UNUSED: Final = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})
_SSN_WORD: Final = r"(?:ssn|itin|social(?: security)?(?: number)?)[ :#]*"
_CF_DIGIT: Final = "[0-9lmnpqrstuv]"


def _us_ssn(digits: str) -> bool:
    """Areas 000 and 666 are never assigned; from 900 on they are tax numbers (ITIN), which only have some groups."""
    area, group, serial = int(digits[:3]), int(digits[3:5]), int(digits[5:])
    if area >= 900:
        return 50 <= group <= 65 or 70 <= group <= 88 or group in (90, 91, 92) or group >= 94
    return area not in (0, 666) and group > 0 and serial > 0


def _uk_nino(text: str) -> bool:
    """QQ is never issued but is the example on forms; it is masked like the rest."""
    if text[:2] == "QQ":
        return True
    return text[0] not in "DFIQUV" and text[1] not in "DFIOQUV" and text[:2] not in _NINO_UNUSED


def _fr_nir(text: str) -> bool:
    month = int(text[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42 or month >= 50) and check.nir(text)


_KINDS: Final[tuple[tuple[str, Callable[[str], bool]], ...]] = (
    (r"[0-9]{3}(?: [0-9]{2} |-[0-9]{2}-)[0-9]{4}", _us_ssn),
    (r"[0-9]{2}[ /]?[0-9]{3}[ /]?[0-9]{3}[ /]?[0-9]{3}", check.steuer_id),
    (r"(?:[0-9]{8}|[0-9]{2}\.[0-9]{3}\.[0-9]{3})[ -]?[a-z]", check.dni),
    # Three groups of three with spaces are far more often sizes, and one in eleven of those passes the check.
    (
        r"(?:[0-9]{9}|[0-9]{4}[. ][0-9]{2}[. ][0-9]{3}|[0-9]{3}(?:\.[0-9]{3}\.|-[0-9]{3}-)[0-9]{3})",
        check.bsn,
    ),
    (r"[0-9]{11}", check.pesel),
    (r"[0-9]{3}[. ]?[0-9]{3}[. ]?[0-9]{3}[ ./-]?[0-9]{2}", check.cpf),
    (r"(?:19|20)?[0-9]{6}[ +-]?[0-9]{4}", check.personnummer),
    (r"[12][ .-]?[0-9]{2}[ .-]?[0-9]{2}[ .-]?(?:[0-9]{2}|2[ab])(?:[ .-]?[0-9]{3}){2}[ .-]?[0-9]{2}", _fr_nir),
    (r"[xyz][ -]?[0-9]{7}[ -]?[a-z]", check.dni),
    (r"[a-z]{2}[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[a-d]", _uk_nino),
    (
        rf"[a-z]{{3}} ?[a-z]{{3}} ?{_CF_DIGIT}{{2}}[a-ehlmprst]{_CF_DIGIT}{{2}} ?[a-z]{_CF_DIGIT}{{3}} ?[a-z]",
        check.codice_fiscale,
    ),
)
"""The shape of a whole word, and the check on its capitals and digits."""
_TWO_DIGITS_FIRST: Final = 7
"""This many shapes begin with two digits, which is checked once for all."""
_DIGIT_FIRST: Final = 8
"""This many shapes begin with a digit."""
_SHAPES: Final = [shape for shape, _ in _KINDS]
_START: Final = re.compile(
    rf"(?=[0-9a-z]){NOT_INSIDE_A_WORD}(?=(?:(?=[0-9]{{2}})(?:{'|'.join(_SHAPES[:_TWO_DIGITS_FIRST])})"
    rf"|{'|'.join(_SHAPES[_TWO_DIGITS_FIRST:])}){NOT_GOING_ON})",
    re.ASCII,
)
"""Where any shape begins: most texts have none, and one search is much quicker than eleven."""
_PATTERNS: Final = [(re.compile(f"{shape}{NOT_GOING_ON}", re.ASCII), holds) for shape, holds in _KINDS]
_OF_DIGITS: Final = _PATTERNS[:_DIGIT_FIRST]
_OF_LETTERS: Final = _PATTERNS[_DIGIT_FIRST:]
_SSN: Final = re.compile(rf"\b{_SSN_WORD}([0-9]{{9}}){NOT_GOING_ON}", re.ASCII)
_SSN_SIGNS: Final = ("ssn", "itin", "social")
_AADHAAR: Final = re.compile(
    r"[2-9](?<![0-9a-z][2-9])(?<![0-9]{4}[ -][2-9])[0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}"
    rf"{NOT_GOING_ON}(?![ -][0-9]{{4}}{NOT_GOING_ON})",
    re.ASCII,
)
"""Not part of a longer row of groups of four: that is a card with a wrong check digit."""


def national_ids(text: str) -> Iterator[Span]:
    """The national ids in a plain text."""
    at, compact = (0, 0), ""
    for start, end, holds in _candidates(text):
        if (start, end) != at:  # several kinds often match the same place
            at, compact = (start, end), _SEPARATORS.sub("", text[start:end].upper())
        if holds(compact) and not _is_something_else(text, start, end):
            yield Span(start, end, "national-id")


def _candidates(text: str) -> Iterator[tuple[int, int, Callable[[str], bool]]]:
    """Spans with the shape of an id; a failed candidate does not hide one that starts inside it."""
    for found in _START.finditer(text):
        start = found.start()
        for pattern, holds in _OF_DIGITS if text[start].isdigit() else _OF_LETTERS:
            if match := pattern.match(text, start):
                yield *match.span(), holds
    if any(map(text.__contains__, _SSN_SIGNS)):
        for match in _SSN.finditer(text):
            yield *match.span(1), _us_ssn
    for match in _AADHAAR.finditer(text):
        yield *match.span(), check.verhoeff


def _is_something_else(text: str, start: int, end: int) -> bool:
    written = text[start:end]
    return is_trade_number(text, start, end) or (" " in written and is_list_of_sizes(_DIGITS.findall(written)))
