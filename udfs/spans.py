"""The return type of the identifier finders, and what finders share.

Finders search a *plain* text (see :func:`udfs.masking.plain_of`), in which digits of any script, dashes and spaces are
ASCII and all letters are lower case. Every pattern is bounded in length from each start, or possessive, and can match a
text in one way only, so that a search is linear.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from udfs.check_digits import gtin


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) are an identifier of this `kind`, the word in its tag."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], Iterator[Span]]

NOT_INSIDE_A_WORD: Final = r"(?<![0-9a-z])"
NOT_GOING_ON: Final = r"(?![0-9a-z])"
_TRADE_WORDS: Final = ("isbn", "issn", "ean", "upc", "gtin", "asin", "barcode")
_TRADE_WORD_ENDS: Final = ("-10", "-11", "-12", "-13", "-14")
_TRADE_WORD_LENGTH_MAX: Final = 16
_NOT_DIGITS: Final = re.compile("[^0-9]")


def is_trade_number(text: str, start: int, end: int) -> bool:
    """Whether a word before the number says that it identifies a product, and its check digit agrees."""
    before = text[max(0, start - _TRADE_WORD_LENGTH_MAX) : start].rstrip(" :#.")
    if before.endswith(_TRADE_WORD_ENDS):
        before = before[:-3]
    return before.endswith(_TRADE_WORDS) and text[start].isdigit() and gtin(_NOT_DIGITS.sub("", text[start:end]))


def is_list_of_sizes(digit_groups: list[str]) -> bool:
    """Whether adjacent numbers look like options to choose from: all round, powers of two, years, or slowly rising.

    >>> [is_list_of_sizes(row.split()) for row in ("500 600 700", "128 256", "2023 2024 2025", "36 38 40 42")]
    [True, True, True, True]
    >>> is_list_of_sizes(["612", "345", "678"]), is_list_of_sizes(["06", "30", "123", "4567"])
    (False, False)
    """
    if len(digit_groups) < 2:
        return False
    numbers = list(map(int, digit_groups))
    first = numbers[0]
    if _is_round(first) and all(map(_is_round, numbers)):
        return True
    if first >= 1900 and max(numbers) < 2100 and min(numbers) >= 1900:
        return True
    if len(numbers) < 4 or not first < numbers[1] <= 2 * first:
        return False
    return all(left < right <= 2 * left for left, right in itertools.pairwise(numbers))


def _is_round(number: int) -> bool:
    return number % 10 == 0 or number & (number - 1) == 0
