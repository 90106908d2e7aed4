"""Writes TCF and GPP strings field by field from the specifications: the counterpart of `udfs.signals`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def base64url(bits: str) -> str:
    """Without padding; zeros fill the last letter."""
    bits += "0" * (-len(bits) % 6)
    return "".join(LETTERS[int(bits[place : place + 6], 2)] for place in range(0, len(bits), 6))


def number(value: int, bits: int) -> str:
    """An Int(bits)."""
    return f"{value:0{bits}b}"


def fibonacci(value: int) -> str:
    """A code word, by the specification's greedy method: repeatedly take the largest number that fits."""
    numbers = [1, 2]
    while numbers[-1] <= value:
        numbers.append(numbers[-1] + numbers[-2])
    places = []
    for place in range(len(numbers) - 1, -1, -1):
        if numbers[place] <= value:
            value -= numbers[place]
            places.append(place)
    return "".join("1" if place in places else "0" for place in range(max(places) + 1)) + "1"


def tcf_core(purposes: Iterable[int] = (), *, version: int = 2, legitimate: Iterable[int] = ()) -> str:
    """A core segment of TCF 2: consent to `purposes`, `legitimate` interest, and no vendors."""
    moment = number(16_000_000_000, 36)
    fields = [
        number(version, 6),
        moment,  # Created
        moment,  # LastUpdated
        number(27, 12),  # CmpId
        number(1, 12),  # CmpVersion
        number(3, 6),  # ConsentScreen
        number(4, 6) + number(13, 6),  # ConsentLanguage "EN"
        number(120, 12),  # VendorListVersion
        number(4, 6),  # TcfPolicyVersion
        "1",  # IsServiceSpecific
        "0",  # UseNonStandardTexts
        number(0, 12),  # SpecialFeatureOptIns
        bitfield(purposes, 24),
        bitfield(legitimate, 24),
        "0",  # PurposeOneTreatment
        number(3, 6) + number(4, 6),  # PublisherCC "DE"
        number(0, 16) + "0",  # vendors with consent
        number(0, 16) + "0",  # vendors with legitimate interest
        number(0, 12),  # NumPubRestrictions
    ]
    return base64url("".join(fields))


def bitfield(ids: Iterable[int], size: int) -> str:
    """A bit for each id, counted from 1."""
    wanted = set(ids)
    return "".join("1" if place in wanted else "0" for place in range(1, size + 1))


def usnat(opt_outs: Mapping[str, int], gpc: bool | None = None, version: int = 1) -> str:
    """A US national section; `opt_outs`: 0 not applicable, 1 opted out, 2 did not. `gpc` is in a sub-section."""
    places = ("sale", "sharing", "targeted_advertising")
    after = {1: 12 * 2 + 2 * 2 + 4 * 2, 2: 16 * 2 + 3 * 2 + 4 * 2}[version]
    notices = number(1, 2) * 6
    core = (
        number(version, 6)
        + notices
        + "".join(number(opt_outs.get(name, 2), 2) for name in places)
        + "10" * (after // 2)
    )
    return base64url(core) + ("" if gpc is None else "." + base64url("01" + ("1" if gpc else "0")))


def gpp(sections: Mapping[int, str], *, groups: bool = True) -> str:
    """A GPP string of `sections` by id; consecutive ids become one group, or single items."""
    items = _items(sorted(sections), groups)
    header = number(3, 6) + number(1, 6) + number(len(items), 12)
    last = 0
    for first, end in items:
        header += ("0" if first == end else "1") + fibonacci(first - last)
        header += "" if first == end else fibonacci(end - first)
        last = end
    return "~".join([base64url(header), *(sections[each] for each in sorted(sections))])


def _items(ids: Sequence[int], groups: bool) -> list[tuple[int, int]]:
    items: list[tuple[int, int]] = []
    for each in ids:
        if groups and items and items[-1][1] == each - 1:
            items[-1] = (items[-1][0], each)
        else:
            items.append((each, each))
    return items
