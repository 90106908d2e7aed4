"""Generates the table of guarantees and their tests from the marks `@pytest.mark.promise("key", …)` on the tests.

`docs/promises.toml` contains the text of each promise; tests refer to its key. A promise without a test is an error,
and so is a test that refers to an unknown promise, so no claim outlives its test.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

_INTRODUCTION: Final = """# Guarantees and their tests

Each row is a promise, with the tests that fail when it is broken. `make test` runs all of them.
The table is written from the marks on the tests (`@pytest.mark.promise`): a promise without a test cannot be listed.
What Freshet does *not* promise is in [Limits](limits.md).
"""


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One promise: tests refer to its `key`; `section` is the heading it is listed under."""

    key: str
    section: str
    text: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    promise: tuple[Promise, ...]


def read_promises(path: Path) -> tuple[Promise, ...]:
    """The promises in the TOML file `path`, in file order."""
    return msgspec.toml.decode(path.read_bytes(), type=_File).promise


def guarantees_page(promises: tuple[Promise, ...], held: Mapping[str, list[str]]) -> str:
    """The page; `held` maps each promise to the tests that verify it.

    Raises :class:`LookupError` for a promise without a test, and for an unknown key.
    """
    keys = [promise.key for promise in promises]
    if broken := sorted(set(keys) ^ held.keys()):
        raise LookupError(f"a promise without a test, or a test without a promise: {', '.join(broken)}")
    lines = [_INTRODUCTION]
    for section in dict.fromkeys(promise.section for promise in promises):
        lines += [f"## {section}", "", "| promise | held by |", "|---|---|"]
        for promise in promises:
            if promise.section == section:
                lines.append(f"| {promise.text} | {'<br>'.join(f'`{test}`' for test in held[promise.key])} |")
        lines.append("")
    return "\n".join(lines)


def promise_tests(tests: Path) -> dict[str, list[str]]:
    """The key of each promise → the tests below the folder `tests` that are marked with it, by path."""
    found: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        where = path.relative_to(tests.parent).as_posix()
        for name, keys in promises_in(path.read_text()):
            for key in keys:
                found.setdefault(key, []).append(f"{where}::{name}" if name else where)
    return found


def promises_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """The names of tests with the promises that they verify; the name is empty for a mark on the whole module.

    >>> list(promises_in("@pytest.mark.promise('a', 'b')\\ndef test_it(): ...\\ndef test_other(): ..."))
    [('test_it', ['a', 'b'])]
    >>> list(promises_in("pytestmark = [pytest.mark.privacy, pytest.mark.promise('a')]\\ndef test_it(): ..."))
    [('', ['a'])]
    """
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            keys = [key for decorator in node.decorator_list for key in _keys(decorator)]
            if keys and node.name.lower().startswith("test"):
                yield node.name, keys
        elif isinstance(node, ast.Assign) and any(ast.unparse(target) == "pytestmark" for target in node.targets):
            marks = node.value.elts if isinstance(node.value, ast.List) else [node.value]
            if keys := [key for mark in marks for key in _keys(mark)]:
                yield "", keys


def _keys(mark: ast.expr) -> list[Any]:
    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
        return [ast.literal_eval(argument) for argument in mark.args]
    return []
