"""The signals of a consent change: `Sec-GPC`, and the contents of its TCF and GPP strings.

Reads only what a decision needs, by the published encodings:

- TCF: IAB Europe, "Consent string and vendor list formats v2" (TCF 2.2), the core segment. Reads the purposes with
  consent; legitimate interest is not consent, and is ignored.
- GPP: IAB Tech Lab, "Global Privacy Platform String" 1.0. Reads the sections 2 (tcfeuv2: a TCF string) and 7
  (usnat: "US National Privacy Technical Specification", versions 1 and 2), and skips the others.

A string that violates its encoding is :attr:`Unread.UNREADABLE`, never an exception, and its contents are never logged.
"""

from collections.abc import Iterator
from enum import Enum
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Final, Literal, NamedTuple

from schemas.consents import ConsentChange

OptOut = Literal["sale", "sharing", "targeted_advertising"]

TCF_VERSION: Final = 2
TCF_PURPOSES: Final = slice(152, 176)
"""The bits of PurposesConsent: one for each of 24 purposes, counted from 1."""
TCF_CORE_BITS_MIN: Final = 259
"""213 bits of fixed fields, twice 17 for no vendors, 12 for no restrictions: a shorter core segment was cut off."""

GPP_TYPE: Final = 3
GPP_VERSION: Final = 1
GPP_RANGE: Final = 24
"""Where the items of the header's range begin, after type, version and their number."""
TCFEUV2: Final = 2
USNAT: Final = 7
FIBONACCI: Final = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181)
"""The values of a code word's places. Section ids are far below; a longer word is invalid."""

USNAT_BITS: Final = {1: 60, 2: 70}
"""The length of the core segment by version: version 2 added bits at the end, which are not read here."""
USNAT_OPT_OUTS: Final[dict[OptOut, int]] = {"sale": 18, "sharing": 20, "targeted_advertising": 22}
"""The first of the two bits of each opt-out: 0 not applicable, 1 opted out, 2 did not opt out."""

_SIXES: Final = {
    letter: f"{value:06b}" for value, letter in enumerate(ascii_uppercase + ascii_lowercase + digits + "-_")
}


class Unread(Enum):
    """Why a string or a section has no value."""

    MISSING = "missing"
    UNREADABLE = "unreadable"


class Signals(NamedTuple):
    """`tcf`: TCF purposes consented to (1 to 24). `usnat`: the user's opt-outs."""

    gpc: bool | Literal[Unread.UNREADABLE]
    tcf: frozenset[int] | Unread
    usnat: frozenset[OptOut] | Unread


def signals_of(change: ConsentChange) -> Signals:
    """The signals of `change`.

    Of two TCF strings, only what both consent to counts; GPC is set if either source sets it.

    >>> change = ConsentChange("u", "full", 1_700_000_000_000, gpc=True)
    >>> signals_of(change)
    Signals(gpc=True, tcf=<Unread.MISSING: 'missing'>, usnat=<Unread.MISSING: 'missing'>)
    """
    tcf = read_tcf(change.tcf) if change.tcf else Unread.MISSING
    gpp = read_gpp(change.gpp) if change.gpp else Signals(False, Unread.MISSING, Unread.MISSING)
    return Signals(True if change.gpc else gpp.gpc, _both(tcf, gpp.tcf), gpp.usnat)


def _both(one: frozenset[int] | Unread, other: frozenset[int] | Unread) -> frozenset[int] | Unread:
    if Unread.UNREADABLE in (one, other):
        return Unread.UNREADABLE
    if isinstance(one, Unread):
        return other
    return one if isinstance(other, Unread) else one & other


def read_tcf(text: str) -> frozenset[int] | Unread:
    """The purposes consented to in a TCF string.

    >>> sorted(read_tcf("COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA"))
    [1, 2, 3]
    """
    try:
        bits = _bits(text.partition(".")[0])
    except ValueError:
        return Unread.UNREADABLE
    if len(bits) < TCF_CORE_BITS_MIN or int(bits[:6], 2) != TCF_VERSION:
        return Unread.UNREADABLE
    return frozenset(purpose for purpose, bit in enumerate(bits[TCF_PURPOSES], start=1) if bit == "1")


def read_gpp(text: str) -> Signals:
    """The signals in the sections of a GPP string; all are unreadable if the header is.

    >>> read_gpp("DBABLA~BVVVVVVVVWA.YA").gpc
    True
    """
    header, *sections = text.split("~")
    try:
        ids = list(_section_ids(_bits(header), len(sections)))
        by_id = dict(zip(ids, sections, strict=True))
    except ValueError:
        return Signals(Unread.UNREADABLE, Unread.UNREADABLE, Unread.UNREADABLE)
    tcf = read_tcf(by_id[TCFEUV2]) if TCFEUV2 in by_id else Unread.MISSING
    if USNAT not in by_id:
        return Signals(False, tcf, Unread.MISSING)
    try:
        core, *others = by_id[USNAT].split(".")
        return Signals(_usnat_gpc(others), tcf, _usnat_opt_outs(core))
    except ValueError:
        return Signals(Unread.UNREADABLE, tcf, Unread.UNREADABLE)


def _bits(text: str) -> str:
    """Base64url without padding as a text of zeros and ones, six per letter; ValueError for any other letter."""
    try:
        return "".join([_SIXES[letter] for letter in text])
    except KeyError:
        raise ValueError from None


def _section_ids(bits: str, sections: int) -> Iterator[int]:
    """The ids in a header's Range(Fibonacci); ValueError if it is invalid, or names more than `sections`."""
    if len(bits) < GPP_RANGE or int(bits[:6], 2) != GPP_TYPE or int(bits[6:12], 2) != GPP_VERSION:
        raise ValueError
    place, last = GPP_RANGE, 0
    for _ in range(int(bits[12:GPP_RANGE], 2)):
        is_group = bits[place : place + 1] == "1"
        offset, place = _fibonacci(bits, place + 1)
        first = last = last + offset
        if is_group:
            length, place = _fibonacci(bits, place)
            last += length
        sections -= last - first + 1
        if sections < 0:
            raise ValueError
        yield from range(first, last + 1)
    if "1" in bits[place:]:
        raise ValueError


def _fibonacci(bits: str, start: int) -> tuple[int, int]:
    """The number of the Fibonacci code word at `start`, and the next word's start. A word ends at its first 11."""
    end = bits.index("11", start) + 1
    word = bits[start:end]
    if len(word) > len(FIBONACCI):
        raise ValueError
    return sum(value for value, bit in zip(FIBONACCI, word, strict=False) if bit == "1"), end + 1


def _usnat_opt_outs(core: str) -> frozenset[OptOut]:
    bits = _bits(core)
    if len(bits) < USNAT_BITS.get(int(bits[:6], 2), len(bits) + 1):
        raise ValueError
    values = {name: int(bits[place : place + 2], 2) for name, place in USNAT_OPT_OUTS.items()}
    if max(values.values()) > 2:
        raise ValueError
    return frozenset(name for name, value in values.items() if value == 1)


def _usnat_gpc(segments: list[str]) -> bool:
    """The value of Gpc in the sub-section of type 1; there are no other types."""
    gpc = False
    for segment in segments:
        bits = _bits(segment)
        if bits[:2] != "01":
            raise ValueError
        gpc |= bits[2] == "1"
    return gpc
