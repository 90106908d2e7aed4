"""Selects the modules and scripts of the client library and rewrites their text for the wheel.

The wheel must not install top-level packages called `schemas`, `models`, `serving` or `adapters`, because applications
may have their own. The repository's `schemas.lists` becomes `freshet._client.schemas.lists` in the wheel, and all
imports are rewritten accordingly.
"""

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from deploy.client.wheel_errors import WheelError

ROOT: Final = Path(__file__).resolve().parents[2]
PUBLIC_FILE: Final = "freshet/__init__.py"
PRIVATE: Final = "freshet._client"


class Import(NamedTuple):
    """A module name in a file, with its position: 1-based line, 0-based column in bytes of UTF-8."""

    name: str
    line: int
    column: int
    binds: tuple[str, ...] = ()
    """The names imported from the module, which may be modules themselves."""


def path_of(root: Path, module: str) -> Path | None:
    """The file of a module below `root`, or None if there is none."""
    stem = root.joinpath(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def imports(text: str) -> Iterator[Import]:
    """All imports of a file, at any nesting level. Raises :class:`WheelError` for relative imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise WheelError(f"line {node.lineno}: a relative import")
            binds = tuple(alias.name for alias in node.names)
            yield Import(node.module or "", node.lineno, node.col_offset + len("from "), binds)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name if alias.asname else f"{alias.name}.", alias.lineno, alias.col_offset)


def modules(root: Path, text: str) -> set[str]:
    """The modules below `root` that a file imports, without their parent packages."""
    found = set()
    for one in imports(text):
        name = one.name.rstrip(".")
        below = [f"{name}.{bound}" for bound in one.binds]
        found |= {module for module in (name, *below) if path_of(root, module)}
    return found


def dependencies(root: Path, seeds: Collection[str]) -> dict[str, Path]:
    """All modules below `root` that `seeds` depend on, by name, including their parent packages."""
    found: dict[str, Path] = {}
    left = list(seeds)
    while left:
        module = left.pop()
        path = path_of(root, module)
        if module in found or path is None:
            continue
        found[module] = path
        package, dot, _ = module.rpartition(".")
        left += [*modules(root, path.read_text()), *([package] if dot else [])]
    return dict(sorted(found.items()))


def third_party(root: Path, paths: Collection[Path]) -> set[str]:
    """The top-level names of third-party packages that the files import."""
    tops = {one.name.partition(".")[0] for path in paths for one in imports(path.read_text())}
    return {name for name in tops - set(sys.stdlib_module_names) if not path_of(root, name)}


def with_moved_imports(text: str, names: Collection[str], strings: Collection[str] = ()) -> str:
    """`text` with imports of the modules `names` moved below :data:`PRIVATE`, and module names in `strings` too.

    Raises :class:`WheelError` for `import a.b`: it binds `a`, so every use of `a` would need rewriting.
    """
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    places = [one for one in imports(text) if one.name.rstrip(".") in names]
    for one in places:
        if one.name.endswith("."):
            raise WheelError(f"line {one.line}: `import {one.name[:-1]}` cannot be moved: use `from … import …`")
    places += [
        Import(node.value, node.lineno, node.col_offset + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in strings
    ]
    for one in sorted(places, key=lambda one: (one.line, one.column), reverse=True):
        line, name = lines[one.line - 1], one.name.encode()
        if not line.startswith(name, one.column):
            raise WheelError(f"line {one.line}: {one.name} is not where it was looked for")
        lines[one.line - 1] = line[: one.column] + f"{PRIVATE}.".encode() + line[one.column :]
    return b"".join(lines).decode()


def client_modules(root: Path, public: Mapping[str, object]) -> dict[str, Path]:
    """The modules of the client library: all that `public` depends on.

    Raises :class:`WheelError` if one of them imports `freshet`, which is the library's public interface: internal
    modules must not depend on it.
    """
    found = dependencies(root, public.keys())
    for name in found:
        if name.partition(".")[0] == "freshet":
            raise WheelError(f"a module of the client library imports {name}")
    return found


def scripts_of(paths: Collection[Path]) -> Iterator[Path]:
    """The Lua scripts inside the packages among `paths`; their modules load them as resources."""
    for path in paths:
        if path.name == "__init__.py":
            yield from path.parent.rglob("*.lua")


def client_sources(root: Path, public: Mapping[str, object]) -> dict[str, str]:
    """The files of the client library: name in the wheel → text."""
    found = client_modules(root, public)
    outside = (root / PUBLIC_FILE).read_text()
    sources = {PUBLIC_FILE: with_moved_imports(outside, found, public), f"{PRIVATE.replace('.', '/')}/__init__.py": ""}
    for path in found.values():
        sources[_inside(root, path)] = with_moved_imports(path.read_text(), found)
    for path in scripts_of(found.values()):
        sources[_inside(root, path)] = path.read_text()
    return sources


def _inside(root: Path, path: Path) -> str:
    """The name in the wheel of a file below `root`."""
    return f"{PRIVATE.replace('.', '/')}/{path.relative_to(root).as_posix()}"
