"""Paths into records: as settings write them, and as they are walked in decoded JSON."""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from schemas.errors import SettingsError

_STEP: Final = re.compile(r"(?P<name>[^\[\].]+)?(?P<picks>(?:\[[^\[\]]+\])*)(?:\.|$)")
_PICK: Final = re.compile(r"\[([^\[\]]+)\]")
DEPTH_MAX: Final = 16


class Pick(NamedTuple):
    """The first entry of an array of objects whose `name` is `value`."""

    name: str
    value: str


Step = str | int | Pick
"""The member of an object, the entry of an array by number, or by what it holds."""
Path = tuple[Step, ...]


def parse_path(text: str) -> Path:
    """The steps of a path; raises :class:`SettingsError` with the text.

    >>> parse_path("properties.products[0].id"), parse_path("params[key=page].value")
    (('properties', 'products', 0, 'id'), ('params', Pick(name='key', value='page'), 'value'))
    """
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None or (found["name"] is None and (at == 0 or not found["picks"])) or found.end() == at:
            raise SettingsError(f'"{text}" is not a path: names joined by dots, with [0] or [key=value] for arrays')
        if found["name"] is not None:
            steps.append(found["name"])
        for pick in _PICK.findall(found["picks"]):
            name, equals, value = pick.partition("=")
            if not equals and not name.isdecimal():
                raise SettingsError(f'"{text}" is not a path: [{pick}] is neither a number nor key=value')
            steps.append(Pick(name, value) if equals else int(name))
        at = found.end()
    if not steps or len(steps) > DEPTH_MAX or text.endswith("."):
        raise SettingsError(f'"{text}" is not a path of 1 to {DEPTH_MAX} names joined by dots')
    return tuple(steps)


def walk(value: Any, path: Sequence[Step]) -> Any:
    """What is at `path` in decoded JSON; None if something on the way is missing or of another kind."""
    for step in path:
        if value is None:
            return None
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        elif not isinstance(value, list):
            return None
        elif isinstance(step, int):
            value = value[step] if step < len(value) else None
        else:
            value = next(
                (one for one in value if isinstance(one, dict) and str(one.get(step.name)) == step.value), None
            )
    return value
