"""What a finder of identifiers returns, and the words that finders share.

Finders look at a *plain* text (see :func:`udfs.masking.plain`): digits of any script are ASCII there, and so are
dashes and spaces. Every pattern is bounded in length from each start, or possessive, so that a search is linear.
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

FLAGS: Final = re.ASCII | re.IGNORECASE
NOT_INSIDE_A_WORD: Final = r"(?<![0-9A-Za-z])"
NOT_GOING_ON: Final = r"(?![0-9A-Za-z])"
_TRADE_WORD: Final = re.compile(r"(?:isbn|issn|ean|upc|gtin|asin|barcode)(?:-1[0-4])?[ :#.]*\Z", FLAGS)
_TRADE_WORD_LENGTH_MAX: Final = 16
_NOT_DIGITS: Final = re.compile("[^0-9]")


def is_trade_number(text: str, start: int, end: int) -> bool:
    """Whether a word before says that it is the number of a thing, and its check digit says so too."""
    if not _TRADE_WORD.search(text[max(0, start - _TRADE_WORD_LENGTH_MAX) : start]):
        return False
    return text[start].isdigit() and gtin(_NOT_DIGITS.sub("", text[start:end]))


def is_list_of_sizes(digit_groups: list[str]) -> bool:
    """Whether numbers side by side look like ones to choose from: all round, powers of two, years, or a slow rise.

    >>> [is_list_of_sizes(row.split()) for row in ("500 600 700", "128 256", "2023 2024 2025", "36 38 40 42")]
    [True, True, True, True]
    >>> is_list_of_sizes(["612", "345", "678"]), is_list_of_sizes(["06", "30", "123", "4567"])
    (False, False)
    """
    if len(digit_groups) < 2:
        return False
    numbers = [int(group) for group in digit_groups]
    if all(number % 10 == 0 or number & (number - 1) == 0 for number in numbers):
        return True
    if all(1900 <= number < 2100 for number in numbers):
        return True
    return len(numbers) > 3 and all(left < right <= 2 * left for left, right in itertools.pairwise(numbers))
