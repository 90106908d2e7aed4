"""Check digits: known numbers are valid, and the errors that each scheme detects are detected."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs import check_digits as check

KNOWN: list[tuple[Callable[[str], bool], list[str]]] = [
    (check.luhn, ["4111111111111111", "5555555555554444", "378282246310005", "8112189876"]),
    (check.iban, ["GB29NWBK60161331926819", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"]),
    (check.verhoeff, ["234123412346", "999941057058", "999971658847"]),
    (check.steuer_id, ["86095742719", "65929970489", "47036892816"]),
    (check.nir, ["255081416802538", "185057800608491"]),
    (check.dni, ["12345678Z", "00000023T", "X1234567L"]),
    (check.codice_fiscale, ["RSSMRA85T10A562S", "RSSMRA80A01H501U", "VRDGPP13R10B293P"]),
    (check.bsn, ["111222333", "123456782", "999990019"]),
    (check.pesel, ["44051401359", "02070803628"]),
    (check.cpf, ["11144477735", "52998224725"]),
    (check.personnummer, ["8112189876", "6408233234", "7010632391"]),
    (check.gtin, ["4006381333931", "036000291452", "0306406152", "9780306406157"]),
]
EACH = [
    pytest.param(holds, number, id=f"{holds.__name__} {place}")
    for holds, all_ in KNOWN
    for place, number in enumerate(all_)
]


def one_digit_changed(number: str) -> list[str]:
    return [
        number[:place] + digit + number[place + 1 :]
        for place, old in enumerate(number)
        if old.isdigit()
        for digit in "0123456789"
        if digit != old
    ]


@pytest.mark.parametrize(("holds", "number"), EACH)
def test_known_numbers_are_valid_and_wrong_digits_detected(holds: Callable[[str], bool], number: str) -> None:
    assert holds(number)
    assert [wrong for wrong in one_digit_changed(number) if holds(wrong)] == []


def with_check_digit(holds: Callable[[str], bool], body: str) -> str:
    [number] = [body + digit for digit in "0123456789" if holds(body + digit)]
    return number


bodies = st.text("0123456789", min_size=3, max_size=18)


@given(bodies)
def test_each_body_has_exactly_one_check_digit(body: str) -> None:
    with_check_digit(check.luhn, body)
    with_check_digit(check.verhoeff, body)


@given(bodies, st.data())
def test_transposed_neighbours_are_detected(body: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(body) - 2))
    swapped = body[:place] + body[place + 1] + body[place] + body[place + 2 :]
    if swapped == body:
        return
    assert not check.verhoeff(swapped + with_check_digit(check.verhoeff, body)[-1])
    if {body[place], body[place + 1]} != {"0", "9"}:
        assert not check.luhn(swapped + with_check_digit(check.luhn, body)[-1])


@pytest.mark.parametrize(
    "digits", [f"4413140135{digit}" for digit in range(10)] + [f"4405320135{digit}" for digit in range(10)]
)
def test_pesel_begins_with_an_existing_date(digits: str) -> None:
    assert not check.pesel(digits)


@pytest.mark.parametrize("digit", "0123456789")
def test_repeated_digits_are_not_valid(digit: str) -> None:
    assert not check.cpf(digit * 11)
    assert not check.steuer_id(digit * 11)
    assert digit != "0" or not check.bsn(digit * 9)


def test_steuer_id_repeats_exactly_one_digit() -> None:
    """Two digits occurring twice each leave as many distinct digits as one occurring three times."""
    assert not check.steuer_id("12132487500") and not check.steuer_id("81669923045")
    assert check.steuer_id(with_check_digit(check.steuer_id, "1112345678"))


@pytest.mark.parametrize(
    ("month", "day", "is_one"),
    [(2, 29, True), (2, 30, False), (4, 31, False), (13, 1, False), (0, 1, False), (1, 0, False)],
)
def test_impossible_dates_are_invalid(month: int, day: int, is_one: bool) -> None:
    assert check.is_day(month, day) is is_one
