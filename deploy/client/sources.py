"""Which modules and scripts the client library consists of, and their text in the wheel.

The wheel must not bring packages called `schemas`, `models`, `serving` or `adapters` along: applications have their
own. What is `schemas.lists` in the repository is `freshet._client.schemas.lists` there, and every import says so.
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
    """A name of a module, where it stands in a file: 1-based line, 0-based column in bytes of UTF-8."""

    name: str
    line: int
    column: int
    binds: tuple[str, ...] = ()
    """What is taken from the module, which may be modules in turn."""


def path_of(root: Path, module: str) -> Path | None:
    """The file of a module below `root`, None where there is none."""
    stem = root.joinpath(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def imports(text: str) -> Iterator[Import]:
    """All imports of a file, wherever they stand in it. Raises :class:`WheelError` for relative ones."""
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
    """The modules below `root` that a file imports, without the packages around them."""
    found = set()
    for one in imports(text):
        name = one.name.rstrip(".")
        below = [f"{name}.{bound}" for bound in one.binds]
        found |= {module for module in (name, *below) if path_of(root, module)}
    return found


def needed(root: Path, seeds: Collection[str]) -> dict[str, Path]:
    """Every module below `root` that `seeds` need, by name, with the packages around each."""
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


def foreign(root: Path, paths: Collection[Path]) -> set[str]:
    """The packages of others, by the name under which they are imported."""
    tops = {one.name.partition(".")[0] for path in paths for one in imports(path.read_text())}
    return {name for name in tops - set(sys.stdlib_module_names) if not path_of(root, name)}


def moved(text: str, names: Collection[str], strings: Collection[str] = ()) -> str:
    """`text` with imports of modules called `names` from :data:`PRIVATE`, and `strings` that name modules likewise.

    Raises :class:`WheelError` for `import a.b`, which binds `a` and would need every use of it rewritten.
    """
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    places = [one for one in imports(text) if one.name.rstrip(".") in names]
    for one in places:
        if one.name.endswith("."):
            raise WheelError(f"line {one.line}: `import {one.name[:-1]}` cannot be moved: say `from … import …`")
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
    """The modules of the client library: what `public` needs. Raises :class:`WheelError` where that leads to freshet.

    `freshet` is the outside of the library: what is inside must not need it.
    """
    found = needed(root, public.keys())
    for name in found:
        if name.partition(".")[0] == "freshet":
            raise WheelError(f"a module of the client library imports {name}")
    return found


def scripts_of(paths: Collection[Path]) -> Iterator[Path]:
    """The Lua scripts that lie in the packages among `paths`: their modules load them as resources."""
    for path in paths:
        if path.name == "__init__.py":
            yield from path.parent.rglob("*.lua")


def client_sources(root: Path, public: Mapping[str, object]) -> dict[str, str]:
    """The files of the client library: their names in the wheel, and their text."""
    found = client_modules(root, public)
    outside = (root / PUBLIC_FILE).read_text()
    sources = {PUBLIC_FILE: moved(outside, found, public), f"{PRIVATE.replace('.', '/')}/__init__.py": ""}
    for path in found.values():
        sources[_inside(root, path)] = moved(path.read_text(), found)
    for path in scripts_of(found.values()):
        sources[_inside(root, path)] = path.read_text()
    return sources


def _inside(root: Path, path: Path) -> str:
    """How a file below `root` is called in the wheel."""
    return f"{PRIVATE.replace('.', '/')}/{path.relative_to(root).as_posix()}"
