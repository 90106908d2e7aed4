"""Masking of free text: no identifier gets through, and the rest of a search does not change."""

import doctest
import gc
import re
import time
import unicodedata
from collections import deque
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.masking import search
from tests.support.examples import examples
from udfs import check_digits, masking, spans
from udfs.identifiers import cards, emails, ibans, ip_addresses, written_out_emails
from udfs.masking import (
    DIGITS_MAX,
    IDENTIFIER_LENGTH_MAX,
    MASKED_LENGTH_MAX,
    NUMBERS_MAX,
    OWN_IDS_MAX,
    SCANNED_LENGTH_MAX,
    find,
    mask,
    plain_of,
)
from udfs.national_ids import national_ids
from udfs.phones import phones
from udfs.spans import Span

pytestmark = pytest.mark.privacy

FINDERS = (emails, written_out_emails, ibans, cards, national_ids, ip_addresses, phones)
SAMPLES = {
    "ada@example.org": "email",
    "ada (at) example.org": "email",
    "GB29 NWBK 6016 1331 9268 19": "iban",
    "4111 1111 1111 1111": "card",
    "078-05-1120": "national-id",
    "QQ 12 34 56 C": "national-id",
    "65 929 970 489": "national-id",
    "2 55 08 14 168 025 38": "national-id",
    "12345678-Z": "national-id",
    "X1234567L": "national-id",
    "RSSMRA85T10A562S": "national-id",
    "111222333": "national-id",
    "44051401359": "national-id",
    "111.444.777-35": "national-id",
    "811218-9876": "national-id",
    "2341 2341 2346": "national-id",
    "192.0.2.15": "ip",
    "2001:db8::8a2e:370:7334": "ip",
    "+44 7700 900123": "phone",
    "020 7946 0958": "phone",
    "0612345678": "phone",
    "06 1 234 5678": "phone",
    "8(912)3456789": "phone",
    "0 532 123 45 68": "phone",
    "4111, 1111, 1111, 1111": "card",
    "ada@ example.org": "email",
    "ivan собака example точка ru": "email",
    "06 10 15 20 30": "phone",
}
WRONG = ["GB29 NWBK 6016 1331 9268 18", "4111 1111 1111 1112", "65929970488", "255081416802539", "12345678-A"]
WRONG += [
    "X1234567M",
    "RSSMRA85T10A562T",
    "111222334",
    "44051401358",
    "111.444.777-36",
    "811218-9875",
    "2341 2341 2347",
]
WRONG += ["000-12-3456", "666-12-3456", "987-66-4320", "123-00-4567", "123-45-0000", "GB 12 34 56 C", "DA123456A"]
WRONG += ["192.0.2.256", "1.2.3.4", "firmware 10.0.2.15", "ab::cd", "12:30:45", "20-10-2024", "255131416802521"]
WRONG += [
    "1111 2341 2341 2346",
    "2341 2341 2346 1111",
    "0 986 452 041",
    "0012345678905",
    "01.02.2024 12",
    "0412 5 6 7812",
]
WRONG += ["011 016 024 032 042", "2023 2024 2025", "256 512 5000", "phone 128 256 512"]
ZEROES = [code for code in range(0x20000) if unicodedata.decimal(chr(code), None) == 0]
SPACES = " \u00a0\u2007\u2009\u202f\u3000"
DASHES = "-\u2010\u2011\u2012\u2013\u2212\uff0d"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f\u202a"


@pytest.mark.parametrize(("written", "kind"), SAMPLES.items())
def test_identifier_is_replaced_by_its_tag(written: str, kind: str) -> None:
    for text in (f"{written}", f"red shoes {written}, size 42", f"({written})", written.lower(), f"42 {written} 42"):
        assert f"[{kind}]" in mask(text)
    assert mask(f"red shoes {written}, size") == f"red shoes [{kind}], size"


@pytest.mark.parametrize("written", WRONG)
def test_lookalikes_are_kept(written: str) -> None:
    assert mask(f"blue {written}") == f"blue {written}"


def test_product_number_with_check_digit_and_word_is_kept() -> None:
    assert mask("0451524934") == mask("isbn 0451524935").removeprefix("isbn ") == "[phone]"
    assert mask("isbn 0451524934") == "isbn 0451524934"
    assert mask("upc 885909950805") == "upc 885909950805"


@pytest.mark.parametrize(
    "written", [*SAMPLES, *WRONG, "212.555.0134", "(212) 555 0134", "01/23/45/67/89", "78.05.1120 x"]
)
@pytest.mark.parametrize("word", ["isbn", "EAN-13:", "barcode #"])
def test_separators_in_product_numbers_do_not_stop_the_job(word: str, written: str) -> None:
    """`isbn 212.555.0134` once raised ValueError: one search, and the job restarted for ever."""
    assert mask(f"{word} {written}").startswith(word)


@pytest.mark.parametrize("country", ["DE89370400440532013000", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"])
def test_iban_length_follows_its_country(country: str) -> None:
    assert mask(f"pay {country} tea") == "pay [iban] tea"
    assert mask(f"pay {country[:4]} {country[4:]} 42 tea") == "pay [iban] 42 tea"
    assert "[iban]" not in mask(f"pay {country}7 tea")


def test_phone_number_ends_at_its_digit_limit() -> None:
    assert mask("0532 123 45 67 42 44") == "[phone] 42 44"


disguises = st.fixed_dictionaries(
    {
        "zero": st.sampled_from(ZEROES),
        "space": st.sampled_from(SPACES),
        "dash": st.sampled_from(DASHES),
        "invisible": st.sampled_from(INVISIBLE),
        "every": st.integers(1, 4),
    }
)


def disguised(written: str, zero: int, space: str, dash: str, invisible: str, every: int) -> str:
    table = {ord(" "): space, ord("-"): dash} | {ord("0") + digit: zero + digit for digit in range(10)}
    translated = written.translate(table)
    return "".join(sign + invisible * (place % every == 0) for place, sign in enumerate(translated))


@settings(max_examples=examples(150), deadline=None)
@given(st.sampled_from(list(SAMPLES)), disguises)
def test_scripts_and_invisible_characters_do_not_hide_identifiers(written: str, disguise: dict) -> None:
    assert mask(f"tea {disguised(written, **disguise)} cup") == f"tea [{SAMPLES[written]}] cup"


def test_every_digit_of_unicode_is_a_digit() -> None:
    for code in range(0x110000):
        digit = unicodedata.digit(chr(code), None)
        if digit is not None:
            assert plain_of(chr(code)).text == str(digit)
            assert not masking._is_clean(plain_of(chr(code)).text)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.text(
        st.characters(exclude_categories=("Nd", "No", "Nl", "Cs")).filter(lambda sign: sign not in "@＠﹫"),
        max_size=300,
    )
)
def test_text_without_digits_and_at_signs_is_only_truncated(text: str) -> None:
    if not masking._may_be_written_out(plain_of(text).text):
        assert mask(text) == text[:MASKED_LENGTH_MAX]


pieces = st.sampled_from(
    [*SAMPLES, *WRONG, "tea", "42", " ", "-", ".", "@", ":", "x", "é", "٤", "茶", "\u200b", "(", "+", "dot", "com"]
)
texts = st.lists(pieces, max_size=8).map("".join) | st.lists(pieces, max_size=8).map(" ".join)


@settings(max_examples=examples(200), deadline=None)
@given(texts)
def test_fast_path_skips_nothing_that_matters(text: str) -> None:
    """The naive twin runs every finder on every text."""
    plain = plain_of(text).text
    if len(re.findall("[0-9]+", plain)) > NUMBERS_MAX or len(re.findall("[0-9]", plain)) > DIGITS_MAX:
        assert find(text) == [Span(0, len(text), "numbers")]
        return
    naive = masking._joined(sorted(span for finder in FINDERS for span in finder(plain)))
    assert [span.kind for span in find(text)] == [span.kind for span in naive]
    assert not naive or not masking._is_clean(plain)


@settings(max_examples=examples(100), deadline=None)
@given(texts)
def test_spans_are_ordered_disjoint_and_in_bounds(text: str) -> None:
    spans = find(text)
    places = [place for span in spans for place in (span.start, span.end)]
    assert places == sorted(places)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)


@pytest.mark.parametrize("length", [MASKED_LENGTH_MAX, SCANNED_LENGTH_MAX, SCANNED_LENGTH_MAX - IDENTIFIER_LENGTH_MAX])
@pytest.mark.parametrize("invisible", ["", "\u200b"])
def test_truncation_never_leaves_a_partial_identifier(length: int, invisible: str) -> None:
    for written in ("4111-1111-1111-1111", "ada-lovelace-of-london@mail.example.org"):
        for place in range(length - 60, length + 20, 3):
            identifier = "".join(sign + invisible * 10 for sign in written)
            text = "tea " * (place // 4) + "t " * (place % 4 // 2) + identifier + " cup" * 300
            masked = mask(text)
            assert len(masked) <= MASKED_LENGTH_MAX
            assert set(masked.replace("[card]", "").replace("[email]", "")) <= set("tea cup")


def test_tag_that_does_not_fit_is_omitted() -> None:
    for room in range(12):
        masked = mask("x" * (MASKED_LENGTH_MAX - room - 1) + " ada@example.org")
        assert masked.endswith("[email]") is (room >= 7)
        assert "[" not in masked or room >= 7


def test_tags_do_not_exceed_the_length_limit() -> None:
    assert mask("a@b.ch " * 30) == "[email] " * 30
    assert mask("a@b.ch " * 100) == "[email] " * 32


def test_identifiers_after_long_masked_text_are_not_shown_in_part() -> None:
    """Masking shortens: a partial identifier at the end of the searched text would move below the length limit."""
    long_address = "a" * 64 + "@" + "b" * 60 + ".example.org "
    for shift in range(0, 200, 7):
        masked = mask(long_address * 7 + "x" * shift + " 4111111111111111" * 3)
        assert set(masked) <= set("[email] x[card]")


def test_invisible_characters_do_not_push_identifiers_past_the_limit() -> None:
    address = "a" * 64 + "@" + "b" * 60 + ".example.org "
    stretched = ("\u200b" * 20).join("lovelace.of.london@mail.example.org")
    assert set(mask(address * 4 + stretched + " cup" * 300)) <= set("[email] ")


def test_producer_ids_are_masked_in_any_form() -> None:
    assert mask("orders of Grüße-7 and s-4711", ["Grüße-7", "s-4711", "e1"]) == "orders of [id] and [id]"
    assert mask("ada lovelace", ["ada"]) == "ada lovelace"
    assert mask("x (a+b)* y", ["(a+b)*"]) == "x [id] y"
    assert mask("4111111111111111", ["11111111"]) == "[card]"


ADVERSARIAL = {
    "digits": "1",
    "digits and spaces": "1 ",
    "leading zeroes": "06 ",
    "fours": "4111 ",
    "words": "a",
    "at signs": "a@",
    "labels": "a@b." + "b.",
    "domains of nobody": "z)@가.q",
    "almost an address": "a.",
    "colons": "1:",
    "quads": "1.1.",
    "brackets": "(0)",
    "plus signs": "+1 ",
    "hex": "dead:beef:",
    "accounts": "DE89 ",
    "ideographs": "茶a",
    "ideographs only": "茶",
    "written out": "a at b dot ",
    "bracketed at": "a(at)b.",
    "phone words": "tel 1 ",
    "invisible": "1\u200b",
}


def seconds(text: str) -> float:
    """The minimum CPU time of three runs, because other processes only add to it. Every finder runs, limits or not."""
    taken = []
    for _ in range(3):
        begun = time.process_time()
        plain = plain_of(text).text
        for finder in FINDERS:
            deque(finder(plain), maxlen=0)
        taken.append(time.process_time() - begun)
    return min(taken)


@pytest.mark.parametrize("pattern", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_masking_time_is_linear(pattern: str) -> None:
    """Sixteen times the text: linear is 16, quadratic 256. Runs too short to measure are skipped."""
    short, long = pattern * (512 // len(pattern)), pattern * (8_192 // len(pattern))
    gc.disable()
    try:
        assert seconds(long) < 64 * max(seconds(short), 50e-6)
    finally:
        gc.enable()


@pytest.mark.parametrize("module", [masking, spans, check_digits], ids=lambda module: module.__name__)
def test_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_known_worst_texts_cost_linear_time() -> None:
    """`make masking` measures the cost of millions; this checks the growth: linear is 16, quadratic 256."""
    gc.disable()
    try:
        for cost in search(2_000, seed=1, say=lambda line: None)[:5]:
            short, long = (cost.text * (length // len(cost.text)) for length in (512, 8_192))
            assert seconds(long) < 64 * max(seconds(short), 50e-6), ascii(cost.text)
    finally:
        gc.enable()


def test_text_with_too_many_numbers_becomes_a_tag() -> None:
    """The search is bounded, so that no text is expensive, and unsearched text is not published."""
    for number, most in (("7", NUMBERS_MAX), ("7" * 9, DIGITS_MAX // 9)):
        assert mask(f"{number} tea " * most) == f"{number} tea " * most
        assert mask(f"{number} tea " * (most + 1)) == "[numbers]"
    assert mask("٧\u200b-" * (NUMBERS_MAX + 1)) == mask("7" * (DIGITS_MAX + 1)) == "[numbers]"


def test_text_full_of_own_ids_becomes_a_tag() -> None:
    assert mask("ada-x tea " * OWN_IDS_MAX, ["ada-x"]) == "[id] tea " * OWN_IDS_MAX
    assert mask("ada-x tea " * (OWN_IDS_MAX + 1), ["ada-x"]) == "[id]"


def read_by_character(text: str) -> masking.Plain:
    """The naive twin of `plain_of`: looks up each character separately."""
    seen = [(place, plain) for place, each in enumerate(text) if (plain := masking._PLAIN.get(ord(each), each))]
    places = None if len(seen) == len(text) else [place for place, _ in seen]
    return masking.Plain("".join(plain for _, plain in seen), places)


def test_both_normalisations_agree_on_every_character() -> None:
    """Alone those that a normalisation changes, and the others in blocks."""
    alone = [f"A{chr(code)}é" for code in masking._PLAIN]
    blocks = [f"A{''.join(map(chr, range(first, first + 32)))}é" for first in range(0, 0x110000, 32)]
    assert len(alone) > 1_000
    for text in alone + blocks:
        assert plain_of(text) == read_by_character(text), ascii(text)


@given(st.text("aA0 \t\u200b\u00ad\ufe0f\u0660\u0130Σςẞ\u2212ไ電", max_size=60) | st.text(max_size=60))
@example("a\u200bb\u200bc\u00add")
@example("\u200ba" * 20)
@example("".join(map(chr, range(0x660, 0x66A))) + "ΑΒΓΔ")
def test_both_normalisations_agree_on_texts(text: str) -> None:
    assert plain_of(text) == read_by_character(text)
