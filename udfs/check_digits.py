"""Check digits of cards, accounts and national ids: they distinguish identifiers from lookalikes.

All functions take ASCII digits and capital letters without separators, and return whether the check digit is right.
"""

import itertools
import operator
from typing import Final

_VALUES: Final = bytes.maketrans(b"0123456789", bytes(range(10)))
_LUHN_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_IBAN_VALUES: Final = {letter: str(value) for value, letter in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 10)}
_VERHOEFF_TURN: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
_DNI_LETTERS: Final = "TRWAGMYFPDXBNJZSQVHLCKE"
_PESEL_WEIGHTS: Final = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
_BSN_WEIGHTS: Final = (9, 8, 7, 6, 5, 4, 3, 2, -1)
_CPF_WEIGHTS: Final = (11, 10, 9, 8, 7, 6, 5, 4, 3, 2)
_CF_ODD: Final = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_DAYS_MAX: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    numbers = digits.encode()[::-1]
    return (sum(numbers[::2].translate(_VALUES)) + sum(numbers[1::2].translate(_LUHN_DOUBLED))) % 10 == 0


def iban(account: str) -> bool:
    """ISO 13616: mod 97 is 1 after the first four characters have moved to the end.

    >>> iban("GB29NWBK60161331926819"), iban("GB29NWBK60161331926818")
    (True, False)
    """
    return int((account[4:] + account[:4]).translate(_IBAN_VALUES)) % 97 == 1


def _product(left: int, right: int) -> int:
    """Multiply in the dihedral group of order ten; 5 to 9 are the reflections."""
    turn = left + right if left < 5 else left - right
    return turn % 5 + 5 * ((left >= 5) != (right >= 5))


def _turned(number: int, places: int) -> int:
    return _turned(_VERHOEFF_TURN[number], places - 1) if places else number


_VERHOEFF_PRODUCT: Final = [[_product(left, right) for right in range(10)] for left in range(10)]
_VERHOEFF_TURNED: Final = [[_turned(number, place) for number in range(10)] for place in range(8)]


def verhoeff(digits: str) -> bool:
    """Verhoeff's scheme, as Aadhaar uses it.

    >>> verhoeff("234123412346"), verhoeff("234123412347")
    (True, False)
    """
    check = 0
    for turned, number in zip(
        itertools.cycle(_VERHOEFF_TURNED), digits.encode()[::-1].translate(_VALUES), strict=False
    ):
        check = _VERHOEFF_PRODUCT[check][turned[number]]
    return check == 0


def steuer_id(digits: str) -> bool:
    """Germany: ISO 7064 mod 11,10; exactly one of the first ten digits occurs twice or three times.

    >>> steuer_id("65929970489"), steuer_id("12132487500")
    (True, False)
    """
    kinds = len(set(digits[:10]))
    is_one_repeated = kinds == 9 or (kinds == 8 and max(map(digits[:10].count, digits[:10])) == 3)
    if digits[0] == "0" or not is_one_repeated:
        return False
    product = 10
    for digit in digits[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def nir(text: str) -> bool:
    """France: 97 minus (number mod 97); Corsica's departments 2A and 2B count as 19 and 18."""
    number = text.replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number[:13]) % 97 == int(number[13:])


def dni(text: str) -> bool:
    """Spain: a letter by mod 23; for foreigners, the first letter X, Y or Z counts as 0, 1 or 2."""
    number = text[:-1].translate({ord("X"): "0", ord("Y"): "1", ord("Z"): "2"})
    return _DNI_LETTERS[int(number) % 23] == text[-1]


def codice_fiscale(text: str) -> bool:
    """Italy: characters in odd places have special values; the last letter is the sum mod 26."""
    values = [int(character) if character.isdigit() else ord(character) - ord("A") for character in text[:15]]
    return (sum(_CF_ODD[value] for value in values[::2]) + sum(values[1::2])) % 26 == ord(text[15]) - ord("A")


def bsn(digits: str) -> bool:
    """The Netherlands: the "elfproef", in which the last digit has weight -1."""
    return digits != "000000000" and _weighed(digits, _BSN_WEIGHTS) % 11 == 0


def pesel(digits: str) -> bool:
    """Poland: a date of birth, whose month encodes the century, and weights mod 10."""
    return is_day(int(digits[2:4]) % 20, int(digits[4:6])) and _weighed(digits, _PESEL_WEIGHTS) % 10 == 0


def cpf(digits: str) -> bool:
    """Brazil: two check digits mod 11; eleven equal digits pass the sums but are never issued."""
    if _weighed(digits[:9], _CPF_WEIGHTS[1:]) * 10 % 11 % 10 != int(digits[9]) or len(set(digits)) == 1:
        return False
    return _weighed(digits[:10], _CPF_WEIGHTS) * 10 % 11 % 10 == int(digits[10])


def personnummer(digits: str) -> bool:
    """Sweden, with or without the century: a date of birth (a coordination number's day is 60 more) and Luhn."""
    short = digits[-10:]
    day = int(short[4:6])
    return is_day(int(short[2:4]), day - 60 if day > 60 else day) and luhn(short)


def gtin(digits: str) -> bool:
    """GS1: EAN, UPC and ISBN-13 alike, and ISBN-10 by its own sum. The number of a product, not of a person.

    >>> gtin("4006381333931"), gtin("0306406152"), gtin("4006381333932")
    (True, True, False)
    """
    numbers = digits.encode()[::-1].translate(_VALUES)
    if len(numbers) == 10:
        return sum(number * place for place, number in enumerate(numbers, 1)) % 11 == 0
    return len(numbers) in (8, 12, 13, 14) and (sum(numbers[::2]) + 3 * sum(numbers[1::2])) % 10 == 0


def is_day(month: int, day: int) -> bool:
    """Whether the day exists in some year."""
    return 1 <= month <= 12 and 1 <= day <= _DAYS_MAX[month - 1]


def _weighed(digits: str, weights: tuple[int, ...]) -> int:
    return sum(map(operator.mul, digits.encode().translate(_VALUES), weights))
