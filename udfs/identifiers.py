"""E-mail addresses, cards, bank accounts and IP addresses in a plain text (see :mod:`udfs.spans`)."""

import functools
import re
import socket
from collections.abc import Iterator
from typing import Final

from udfs.check_digits import iban, luhn
from udfs.spans import NOT_GOING_ON, Span, is_trade_number

# Scripts that write words without spaces, or attach particles to foreign words: an address may start or end there.
_UNSPACED: Final = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_STOP: Final = r"\s@<>()\[\]{},;:\"!?/\\|=&，、；：！？「」«»“”"
_LOCAL: Final = rf"(?:(?<![^{_STOP}{_UNSPACED}])[^{_STOP}{_UNSPACED}]++|(?<![^{_STOP}])[^{_STOP}]++(?<=[{_UNSPACED}]))"
_ASCII_DOMAIN: Final = (
    r"(?:[0-9a-z-]{1,63}\.){1,8}(?:xn--[0-9a-z-]{2,59}|[a-z]{2,24})"
    rf"(?!-?[0-9a-z])(?!\.?[^{_STOP}.{_UNSPACED}#%*'-])"
)
_ANY_DOMAIN: Final = rf"(?:[^{_STOP}.#%*]{{1,63}}\.){{1,8}}[^{_STOP}.#%*0-9_'-][^{_STOP}.#%*_']{{1,23}}"
# Keyboards insert a space after what they take for the end of a word.
_AT_DOMAIN: Final = re.compile(rf"@(?: ?{_ASCII_DOMAIN}|{_ANY_DOMAIN})")
_LOCAL_END: Final = re.compile(rf"{_LOCAL}\Z")

DOT_WORDS: Final = ("dot", "punkt", "punto", "point", "ponto", "точка")
"""An address written out in words contains one of these, unless its @ is in brackets."""
_AT_WORD: Final = "at|arroba|arobase|chiocciola|ät|собака"
_DOT_WORD: Final = "|".join(DOT_WORDS)
_BRACKETED_AT: Final = rf" ?[(\[{{<] ?(?:{_AT_WORD}|@) ?[)\]}}>] ?"
_ANY_DOT: Final = rf"(?: ?[(\[{{<] ?(?:{_DOT_WORD}|\.) ?[)\]}}>] ?| (?:{_DOT_WORD}) |\.)"
_TOP_OF_MANY: Final = (
    "com|org|net|edu|gov|info|io|example|de|at|ch|fr|be|es|it|nl|pl|pt|br|se|no|dk|fi|cz|eu|uk|us|ca|au|in|jp|mx|ar|"
    "ru|рф"
)
_EMAIL_WRITTEN_OUT: Final = re.compile(
    rf"(?<![^{_STOP}])[^{_STOP}]++(?:{_BRACKETED_AT}[\w-]{{1,63}}(?:{_ANY_DOT}[\w-]{{2,63}}){{1,4}}"
    rf"| (?:{_AT_WORD}) [\w-]{{1,63}}(?:{_ANY_DOT}[\w-]{{1,63}}){{0,3}} (?:{_DOT_WORD}) (?:{_TOP_OF_MANY})\b)"
)

_GAP: Final = r"(?: - |, ?|[ ._/-])"
_CARD_SHAPES: Final = (
    "[0-9]{13,18}",
    rf"[0-9]{{3}}(?:{_GAP}[0-9]{{4}}){{3}}",
    rf"[0-9]{{3}}(?:{_GAP}[0-9]{{4}}){{3}}{_GAP}[0-9]{{3}}",
    rf"[0-9]{{3}}{_GAP}[0-9]{{6}}{_GAP}[0-9]{{4,5}}",
    rf"[0-9]{{5}}{_GAP}[0-9]{{8,13}}",
    rf"(?:{_GAP}[0-9]){{14,15}}(?!{_GAP}[0-9])",
    rf"[0-9](?:{_GAP}[0-9]{{2}}){{7}}(?!{_GAP}[0-9])",
)
_CARD_START: Final = re.compile(rf"[2-6](?<![0-9][2-6])(?=(?:{'|'.join(_CARD_SHAPES)})(?![0-9]))")
_CARDS: Final = tuple(re.compile(rf"[2-6]{shape}(?![0-9])") for shape in _CARD_SHAPES)
_CARD_ISSUERS: Final = {14: ("30", "36", "38", "39"), 15: ("34", "37")}
"""Cards this short have few issuers; longer ones start with any digit from 2 to 6."""
_NOT_DIGITS: Final = re.compile("[^0-9]")
_SEPARATORS: Final = re.compile("[ .-]+")

_IBAN_START: Final = re.compile(r"([a-z]{2})[0-9]{2}(?:(?<![0-9a-z][a-z]{2}[0-9]{2})|(?<=iban[a-z]{2}[0-9]{2}))")
_IBAN_COUNTRIES: Final = (
    "NO15 BE16 DK18 FI18 FK18 FO18 GL18 NL18 SD18 MK19 SI19 AT20 BA20 EE20 KZ20 LT20 LU20 MN20 XK20 CH21 HR21 LI21 "
    "LV21 BG22 BH22 CR22 DE22 GB22 GE22 IE22 ME22 RS22 VA22 AE23 GI23 IL23 IQ23 OM23 SO23 TL23 AD24 CZ24 ES24 MD24 "
    "PK24 RO24 SA24 SE24 SK24 TN24 VG24 LY25 PT25 ST25 IS26 TR26 BI27 DJ27 FR27 GR27 IT27 MC27 MR27 SM27 AL28 AZ28 "
    "BY28 CY28 DO28 GT28 HN28 HU28 LB28 NI28 PL28 SV28 BR29 EG29 PS29 QA29 UA29 JO30 KW30 MU30 YE30 MT31 SC31 LC32 RU33"
)
_IBAN_LENGTH: Final = {entry[:2]: int(entry[2:]) for entry in _IBAN_COUNTRIES.split()}
"""Length of an account number by country (SWIFT's IBAN registry)."""

_IPV4: Final = re.compile(r"[0-9](?<![0-9a-z.,][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9a-z]|\.[0-9])")
_IPV6: Final = re.compile(
    r"[0-9a-f:](?<![0-9a-z:.][0-9a-f:])[0-9a-f:]{3,38}(?:(?<=:)[0-9]{1,3}(?:\.[0-9]{1,3}){3})?(?![0-9a-z:])"
)
_VERSION_WORD: Final = re.compile(r"(?:\bv|ver|version|firmware|fw|release|build|driver|bios|update)[ .:]*\Z", re.ASCII)
_VERSION_WORD_LENGTH_MAX: Final = 12


def emails(text: str) -> Iterator[Span]:
    """Addresses with an @, in any script."""
    begin = 0
    for domain in _AT_DOMAIN.finditer(text):  # search for the domain first, because most text has no @ after it
        local = _LOCAL_END.search(text, begin, domain.start())
        begin = domain.start() + 1  # no address spans an @, so text before it is searched once
        if local:
            begin = domain.end()
            yield Span(local.start(), begin, "email")


def written_out_emails(text: str) -> Iterator[Span]:
    """Addresses such as `ada (at) example.org` and `ada at example dot org`."""
    for match in _EMAIL_WRITTEN_OUT.finditer(text):
        yield Span(*match.span(), "email")


def cards(text: str) -> Iterator[Span]:
    """Payment cards: 14 to 19 digits, grouped as on cards, checked by issuer and Luhn."""
    for start in _CARD_START.finditer(text):
        for shape in _CARDS:
            if match := shape.match(text, start.start()):
                digits = _NOT_DIGITS.sub("", match[0])
                issued = digits.startswith(_CARD_ISSUERS.get(len(digits), ("2", "3", "4", "5", "6")))
                if issued and luhn(digits) and not is_trade_number(text, *match.span()):
                    yield Span(*match.span(), "card")


def ibans(text: str) -> Iterator[Span]:
    """Bank accounts: the country's number of characters, in any grouping, checked by mod 97."""
    for match in _IBAN_START.finditer(text):
        length = _IBAN_LENGTH.get(match[1].upper())
        account = _iban_rest(length).match(text, match.end()) if length else None
        if account and iban(_SEPARATORS.sub("", text[match.start() : account.end()]).upper()):
            yield Span(match.start(), account.end(), "iban")


@functools.cache
def _iban_rest(length: int) -> re.Pattern[str]:
    return re.compile(rf"(?:[ .-]?[0-9a-z]){{{length - 4}}}{NOT_GOING_ON}")


def ip_addresses(text: str) -> Iterator[Span]:
    """IPv4 and IPv6. Four single digits, or four numbers after a word such as `firmware`, are a version number."""
    for match in _IPV4.finditer(text) if text.count(".") > 2 else ():
        parts = match[0].split(".")
        before = text[max(0, match.start() - _VERSION_WORD_LENGTH_MAX) : match.start()]
        if max(map(int, parts)) <= 255 and max(map(len, parts)) > 1 and not _VERSION_WORD.search(before):
            yield Span(*match.span(), "ip")
    for match in _IPV6.finditer(text) if text.count(":") > 1 else ():
        if _is_ipv6(match[0]):
            yield Span(*match.span(), "ip")


def _is_ipv6(written: str) -> bool:
    """Whether it is an IPv6 address; it must have a digit, because programmers also write names like `ab::cd`."""
    if written.count(":") < 2 or not any(map(str.isdigit, written)):
        return False
    try:
        socket.inet_pton(socket.AF_INET6, written)
    except OSError:
        return False
    return True
