"""`freshet bench masking`: searches for the text that is most expensive to mask (`make masking`).

Texts are generated from what the patterns of `udfs/` match: by repetition, at random, and by mutating the most
expensive texts so far. Costs are CPU times of the thread. A text that appears expensive is masked again, and the
minimum counts, so that other load on the machine has no effect.
"""

import gc
import heapq
import multiprocessing
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from bench.figures import machine
from bench.results import table, write_section
from schemas.events import QUERY_LENGTH_MAX
from udfs.masking import mask

LIMIT_US: Final = 200.0
POOL: Final = 48
"""The number of most expensive texts that are kept and mutated."""
AGAIN: Final = 6
OWN_IDS: Final = ((3, 6), (11, 12), (100, 36), (120, 64))
"""The positions and lengths of a text's own ids."""
_WORDS: Final = (
    *(
        "tel",
        "phone",
        "call",
        "ssn",
        "iban",
        "isbn",
        "ean",
        "at",
        "dot",
        "com",
        "ada",
        "example",
        "org",
        "v",
        "firmware",
    ),
    *(
        "barcode",
        "social",
        "security",
        "number",
        "gtin-",
        "arroba",
        "punto",
        "собака",
        "точка",
        "телефон",
        "тел",
        "電話",
    ),
    *("โทร", "รหัส", "DE", "GB", "FR", "NO", "XK", "RSSMRA", "AB", "QQ", "X", "Z", "B", "fe80", "xn--"),
)
_SIGNS: Final = (
    *"0123456789",
    *"000111245679",
    *"    ----....//()()[]{}<>@+:,_#?!'",
    *"abcdefxyzDEQZ",
    *"٠١٥०९４１\u200b\u00a0\u2011\u2212\u3000\uff0d。．＋（）éßไ電가",
)
_SHAPES: Final = (
    *("4111 1111 1111 1111", "4111111111111111", "4 1 1 1 - 1, 1", "3782 822463 10005", "078-05-1120", "078051120"),
    *("QQ 12 34 56 C", "65 929 970 489", "2 55 08 14 168 025 38", "12345678-Z", "12.345.678-Z", "X-1234567-L"),
    *("RSSMRA85T10A562S", "111222333", "1112.22.333", "111.222.333", "44051401359", "111.444.777-35", "811218-9876"),
    *("2341 2341 2346", "192.0.2.15", "2001:db8::8a2e:370:7334", "::1", "+44 7700 900123", "+1 (0) 2", "00 44 7 7"),
    *("020 7946 0958", "(0)1 - 2", "0612345678", "06 12 34 56 78", "01/02.03", "212-555-0134", "(212) 555 0134"),
    *("11 91234-5678", "8 912 345 67 89", "98765 43210", "138-1234-5678", "612 345 678", "612 34 56 78", "412 34 567"),
    *("tel: 1", "my number is 12", "GB29 NWBK 6016 1331 9268 19", "iban de12", "A b.C-1", "a@b.c", "a @ b", "a@[b"),
    *("ada (at) b (dot) c", "ada at b dot c dot com", "1.2.3.", "1:2:3", "٠1.1-", "01-2", "0134"),
)
_PARTS: Final = (*_SIGNS, *_SIGNS, *_WORDS, *_SHAPES)


class MaskingCost(NamedTuple):
    """A text and the CPU time in µs for masking it."""

    us: float
    text: str


def cost_us(text: str, times: int = 1) -> float:
    """The minimum of `times` runs, in µs of this thread's CPU time; the producer's ids are parts of the text."""
    least, own_ids = float("inf"), [text[start : start + length] for start, length in OWN_IDS]
    for _ in range(times):
        begun = time.thread_time_ns()
        mask(text, own_ids)
        least = min(least, time.thread_time_ns() - begun)
    return least / 1_000


def _filled(unit: str, length: int) -> str:
    return (unit * (length // max(1, len(unit)) + 1))[:length]


def _repeated(rng: random.Random, length: int) -> str:
    return _filled("".join(rng.choices(_PARTS, k=rng.randint(1, 6))), length)


def _mixed(rng: random.Random, length: int) -> str:
    return _filled("".join(rng.choices(_PARTS, k=length // 4)), length)


def _named(rng: random.Random, length: int) -> str:
    """Words such as `isbn` before the numbers that they announce."""
    shapes = [rng.choice(_SHAPES).translate({ord(" "): rng.choice(" -./")}) for _ in range(length // 12 + 1)]
    return _filled(" ".join(f"{rng.choice(_WORDS)} {shape}" for shape in shapes), length)


def _few_signs(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(rng.sample(_SIGNS, rng.randint(1, 5)), k=length))


def _changed(rng: random.Random, text: str, other: str, length: int) -> str:
    """A mutation of `text`: a part is replaced, repeated, moved, kept alone, or taken from `other`."""
    start = rng.randrange(len(text))
    part = text[start : start + rng.choice((1, 1, 2, 3, 5, 8, 13, 40, 120))]
    rest = text[start + len(part) :]
    way = rng.randrange(6)
    if way == 0:
        return _filled(text[:start] + rng.choice(_PARTS) + rest, length)
    if way == 1:
        return _filled(text[:start] + rng.choice(_PARTS) + text[start:], length)
    if way == 2:
        return _filled(text[:start] + part + part + rest, length)
    if way == 3:
        return _filled(part, length)
    if way == 4:
        return _filled(text[:start] + rest, length)
    return _filled(text[:start] + other[rng.randrange(len(other)) :], length)


def made(rng: random.Random, pool: list[MaskingCost], length: int) -> str:
    """The next text to try: half of them are mutations of the most expensive ones so far."""
    if pool and rng.random() < 0.5:
        return _changed(rng, rng.choice(pool).text, rng.choice(pool).text, length)
    return rng.choice((_repeated, _repeated, _mixed, _named, _few_signs))(rng, length)


def search(
    texts: int, seed: int, length: int = QUERY_LENGTH_MAX, say: Callable[[str], None] = print
) -> list[MaskingCost]:
    """Mask `texts` texts; returns the most expensive ones, in descending order."""
    rng, pool = random.Random(seed), list[MaskingCost]()  # noqa: S311 - nothing secret is drawn
    for number in range(1, texts + 1):
        text = made(rng, pool, length)
        least = pool[0].us if len(pool) == POOL else 0.0
        if cost_us(text) > least and (us := cost_us(text, AGAIN)) > least and all(text != kept.text for kept in pool):
            (heapq.heappush if len(pool) < POOL else heapq.heapreplace)(pool, MaskingCost(us, text))
        if number % 100_000 == 0:
            say(f"masking: {number:,} texts, the worst of them {max(pool).us:.0f} µs")
    return sorted((MaskingCost(cost_us(cost.text, 50), cost.text) for cost in pool), reverse=True)


def search_in(processes: int, texts: int, seed: int) -> list[MaskingCost]:
    """Run independent searches in parallel; returns the most expensive texts, measured again one at a time."""
    with multiprocessing.get_context("spawn").Pool(processes, gc.disable) as pool:
        found = pool.starmap(search, [(texts // processes, seed + number) for number in range(processes)])
    worst = sorted((cost for costs in found for cost in costs), reverse=True)[:POOL]
    return sorted((MaskingCost(cost_us(cost.text, 200), cost.text) for cost in worst), reverse=True)


def body(worst: list[MaskingCost], texts: int) -> str:
    """The section of RESULTS.md."""
    rows = [[f"`{ascii(cost.text[:60])[1:-1].replace('|', '')}…`", f"{cost.us:.0f}"] for cost in worst[:5]]
    verdict = "met" if worst[0].us <= LIMIT_US else "**missed**"
    typical = min(cost_us("red shoes size 42 under 100 euros", 50) for _ in range(9))
    return (
        f"Of {texts:,} texts of {QUERY_LENGTH_MAX} characters with four own ids in each, half of them neighbours of "
        f"the worst so far, the worst takes **{worst[0].us:.0f} µs of CPU** (limit {LIMIT_US:.0f}: {verdict}). "
        f"`red shoes size 42 under 100 euros` takes {typical:.1f} µs.\n\n"
        + table(["the worst texts begin with", "µs"], rows)
    )


def run(texts: int, seed: int, processes: int, write: bool, command: str) -> tuple[str, bool]:
    """Search for the most expensive text; returns the table, and whether that text is within the limit."""
    gc.disable()
    worst = search_in(processes, texts, seed)
    found = body(worst, texts)
    if write:
        head = f"## Masking\n\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {machine()}; `{command}`."
        write_section("masking", f"{head}\n\n{found}")
    return found, worst[0].us <= LIMIT_US
