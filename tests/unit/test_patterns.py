"""The time of every regular expression of the product is linear in the length of the text."""

import gc
import importlib
import pkgutil
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import adapters
import models
import schemas
import serving
import udfs
from schemas.events import Interaction, Label

PACKAGES = (schemas, udfs, serving, adapters, models)
UNITS = (
    *("0", "1", "9", "a", "z", "A", " ", ".", "-", ":", "@", "%", "(", "+", "/", "=", "_", "é", "茶", "\n", '"'),
    *("0 ", "1-", "0(0)", "(0)1", "+1 ", "1.", "1.1.1.1", "1:", "a.", "a@", "a@b.", "a-", "ab1", "a 1", "tel 1 "),
    *("%41", "%4", "4111 ", "4111-", "06 1", "0134", "DE89", "iban", " at ", " dot ", "a(at)", "٠1.1-", '"at":1,'),
    *('"withdrawn":1', "isbn 1", "ssn 1", "A1-", "xn--", "::", "[a:", "00-" + "a" * 32 + "-"),
)
SHORT, LONG = 500, 4_000
WORTH_MEASURING_S = 0.002
"""Below it, a text of 4,000 characters costs 0.5 µs a character, and there is no growth to fear."""
LOOKS = 5


class Use(NamedTuple):
    """A pattern and how its module uses it: from a position, on a whole text, or anywhere in it."""

    pattern: "re.Pattern[Any]"
    methods: frozenset[str]


def patterns() -> dict[str, Use]:
    """All patterns of modules, by name; those of field types come from msgspec, which searches."""
    found: dict[str, Use] = {}
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "operators" in module.name or module.name.endswith("__main__"):
                continue
            loaded = importlib.import_module(module.name)
            source = Path(str(loaded.__file__)).read_text()
            for name, value in vars(loaded).items():
                methods = frozenset(re.findall(rf"\b{name}\.(fullmatch|match|search|finditer|findall|sub)\b", source))
                for number, pattern in enumerate(held(value)):
                    found[f"{module.name}.{name}.{number}"] = Use(pattern, methods or frozenset({"match"}))
    fields = [Label, *Interaction.__annotations__.values()]
    written = {text for field in fields for text in re.findall(r"pattern='([^']+)'", repr(field))}
    return found | {text: Use(re.compile(text), frozenset({"search"})) for text in written}


def held(value: Any) -> Iterator["re.Pattern[Any]"]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from held(part)
    elif isinstance(value, dict):
        yield from held(list(value.values()))


def seconds(use: Use, text: str, times: int = 3) -> float:
    """The minimum CPU time for matching all of `text` in the ways of its module."""
    pattern, methods = use
    subject: Any = text if isinstance(pattern.pattern, str) else text.encode()
    taken = []
    for _ in range(times):
        begun = time.thread_time()
        if methods - {"match", "fullmatch"}:
            deque(pattern.finditer(subject), maxlen=0)
        if "match" in methods:
            pattern.match(subject)
        if "fullmatch" in methods:
            pattern.fullmatch(subject)
        taken.append(time.thread_time() - begun)
    return min(taken)


def is_linear(use: Use, unit: str) -> bool:
    """Tries a text that matches at its end and one that does not. Superlinear patterns fail every time."""
    for end in ("", "\0"):
        long, short = (unit * (length // len(unit)) + end for length in (LONG, SHORT))
        if all(grows(use, long, short) for _ in range(LOOKS)):
            return False
    return True


def grows(use: Use, long: str, short: str) -> bool:
    """Eight times the text: linear is 8, quadratic 64. Repeats, because the machine may be busy."""
    return seconds(use, long, times=1) > WORTH_MEASURING_S and seconds(use, long) > 24 * seconds(use, short)


def test_all_patterns_are_linear() -> None:
    found = patterns()
    assert len(found) > 50
    gc.disable()
    try:
        slow = {(name, unit) for name, use in found.items() for unit in UNITS if not is_linear(use, unit)}
    finally:
        gc.enable()
    assert slow == set()


def test_backtracking_pattern_is_found() -> None:
    assert not is_linear(Use(re.compile(r"[0-9]+x"), frozenset({"search"})), "0")
