"""The names of the states that the code declares, from its sources: no list that could be forgotten."""

import ast
import functools
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

OPERATORS: Final = "udfs.operators"


@functools.lru_cache(maxsize=1)
def declared_states() -> frozenset[str]:
    """The first argument of each state descriptor that an operator makes.

    >>> "users-v1" in declared_states()
    True
    """
    sources = [entry for entry in files(OPERATORS).iterdir() if entry.name.endswith(".py")]
    return frozenset(name for source in sources for name in names_in(source.read_text(encoding="utf-8")))


def names_in(source: str) -> Iterator[str]:
    """The states that a module declares. Raises :class:`ValueError` for a name that is not written out.

    >>> list(names_in('context.get_state(ValueStateDescriptor("a-v1", kind))'))
    ['a-v1']
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _called(node.func).endswith("StateDescriptor"):
            name = node.args[0] if node.args else None
            if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
                raise ValueError(f"line {node.lineno}: write out the name of the state, so that it can be found")
            yield name.value


def _called(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))
