"""Phone numbers: the international form, national forms, and whatever a word calls a phone number.

Phone numbers have no check digit. Digits without separators are only taken for one in the mobile formats that shops see
most, because part numbers look the same; with separators, an area code or a word before, more is accepted.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Final

from udfs.check_digits import gtin
from udfs.spans import NOT_GOING_ON, NOT_INSIDE_A_WORD, Span, is_list_of_sizes, is_trade_number

_GAP: Final = r"(?: ?\(\) ?| - |\) ?| ?\(|[ ./-])"
"""What may be between two digits. The 0 of `(0)` only counts as a digit, because ambiguity would cause backtracking."""
_DIGIT_GROUP: Final = re.compile("[0-9]+")
_TRUNK_DIGITS: Final = range(9, 13)
_SPACED_WORDS: Final = (
    "tel|tél|phone|telephone|téléphone|telefon|telefono|teléfono|telefone|telefoon|telefonnummer|phone number|"
    "my number is|puhelin|mobile|mobil|móvil|celular|cellulare|cell|portable|handy|whatsapp|viber|sms|call|call me|"
    "ring|text|bel|rappel|sđt|điện thoại|телефон|тел|звоните|τηλέφωνο|τηλ|κινητό|هاتف|جوال|تلفن|تماس|טלפון|"
    "फोन|फ़ोन|मोबाइल|ফোন"
)
_UNSPACED_WORDS: Final = "電話|电话|手机|携帯|전화|휴대폰|โทร"

_INTERNATIONAL: Final = re.compile(
    rf"[+0](?:(?<=\+)(?<![0-9a-z+]\+) ?[1-9](?:{_GAP}?[0-9]){{7,14}}(?![0-9])"
    rf"|(?<=0)(?<![0-9a-z.,]0)0 ?[1-9](?:{_GAP}?[0-9]){{8,13}}{NOT_GOING_ON})",
    re.ASCII,
)
_TRUNK: Final = re.compile(
    rf"[(0](?<![0-9a-z.,][(0])(?:(?<=\()0|(?<=0))[1-9][0-9]{{0,4}}\)?(?:{_GAP}?[0-9]{{1,8}}+){{1,6}}{NOT_GOING_ON}",
    re.ASCII,
)
"""Groups are possessive: digits can be grouped in millions of ways, of which one is enough."""
_BARE: Final = re.compile(
    r"[018](?<![0-9a-z.,-][018])(?:(?<=0)(?:[4-7][0-9]{8}|[1-9][0-9]{9}|1[5-7][0-9]{9})"
    r"|(?<=1)[3-9][0-9]{9}|(?<=8)9[0-9]{9})(?![0-9a-z-])",
    re.ASCII,
)
_NATIONAL: Final = re.compile(
    r"(?=\([0-9]|[0-9])"
    + NOT_INSIDE_A_WORD
    + r"(?<!0[ .-])(?=\(|[0-9]{2}|[01378][ .-]?[(2-9])(?:"
    + "|".join(
        (
            # North America; Brazil; any area code in brackets, after a trunk prefix or not
            r"(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}",
            r"[0-9]{2}[ -]9[0-9]{4}-[0-9]{4}",
            r"(?:[1378][ -]?)?\([0-9]{2,5}\) ?[0-9]{2,5}(?:[ .-][0-9]{2,5}){1,3}",
            r"(?:[1378][ -]?)?\([0-9]{2,5}\) ?[0-9]{6,8}",
            # Turkey; Russia and its neighbours; India; China
            r"0 5[0-9]{2} [0-9]{3} [0-9]{2} ?[0-9]{2}",
            r"[78][ -]9[0-9]{2}[ -][0-9]{3}[ -][0-9]{2}[ -]?[0-9]{2}",
            r"[6-9][0-9]{4}[ -][0-9]{5}",
            r"1[3-9][0-9]([ -])[0-9]{4}\1[0-9]{4}",
            # Poland, Portugal, Spain, Czechia; Spain; Norway
            r"[5-9][0-9]{2}([ .-])[0-9]{3}\2[0-9]{3}",
            r"[6-9][0-9]{2} [0-9]{2} [0-9]{2} [0-9]{2}",
            r"[49][0-9]{2} [0-9]{2} [0-9]{3}",
        )
    )
    + ")"
    + NOT_GOING_ON,
    re.ASCII,
)


def _any_of(words: str) -> str:
    """A pattern for `words`, grouped by first letter: where none begins, it costs next to nothing."""
    by_first = itertools.groupby(sorted(words.split("|")), key=lambda word: word[0])
    return "|".join(f"{first}(?:{'|'.join(word[1:] for word in those)})" for first, those in by_first)


_FIRST_LETTERS: Final = "".join(sorted({word[0] for word in f"{_SPACED_WORDS}|{_UNSPACED_WORDS}".split("|")}))
_CALLED: Final = re.compile(
    rf"(?=[{_FIRST_LETTERS}])(?:(?<![^\W\d])(?:{_any_of(_SPACED_WORDS)})|{_any_of(_UNSPACED_WORDS)})\.? ?[:#]? ?"
    rf"(?<![0-9])(\(?[0-9]{{1,12}}\)?(?:[ ./-][0-9]{{2,8}}){{0,5}}){NOT_GOING_ON}"
)
"""In lower case, as plain text is: ignoring case is ten times as slow."""
_CALLED_DIGITS: Final = range(7, 14)
_FRENCH: Final = re.compile(r"\(?0[1-9](?:[ .-][0-9]{2}){4}")
_DATE: Final = re.compile(r"[0-9]{1,2}([./-])[0-9]{1,2}\1(?:19|20)[0-9]{2}")


def phones(text: str) -> Iterator[Span]:
    """The phone numbers in a plain text."""
    for pattern in (_INTERNATIONAL, _BARE, _NATIONAL):
        for match in pattern.finditer(text):
            if not _is_something_else(text, *match.span()):
                yield Span(*match.span(), "phone")
    for match in _TRUNK.finditer(text):
        if end := _trunk_end(match):
            yield Span(match.start(), end, "phone")
    for match in _CALLED.finditer(text):
        groups = _DIGIT_GROUP.findall(match[1])
        if sum(map(len, groups)) in _CALLED_DIGITS and not is_list_of_sizes(groups):
            yield Span(*match.span(1), "phone")


def _is_something_else(text: str, start: int, end: int) -> bool:
    written = text[start:end]
    if written.startswith("+"):
        return False
    padded = written.startswith("00") and written.isdigit() and gtin(written)
    return padded or is_list_of_sizes(_DIGIT_GROUP.findall(written)) or is_trade_number(text, start, end)


def _trunk_end(match: re.Match[str]) -> int:
    """Where a number with a leading zero ends: after as many groups as a phone number may have digits for.

    0 for none.
    """
    if french := _FRENCH.match(match[0]):
        return match.start() + french.end()
    groups = list(_DIGIT_GROUP.finditer(match[0]))
    written = [group[0] for group in groups]
    digits = sum(map(len, written))
    while digits not in _TRUNK_DIGITS and written:
        digits -= len(written.pop())
    if len(written) < 2 or _DATE.match(match[0]):
        return 0
    # Hungary's capital has an area code of one digit, after 06.
    single = list(map(len, written)).count(1)
    if single > (written[0] == "06") or is_list_of_sizes(written):
        return 0
    return match.start() + groups[len(written) - 1].end()
