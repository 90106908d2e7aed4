"""Every imported package is declared for the folder that imports it, and pinned once."""

import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDS = {
    "adapters/files": ("serving/requirements.txt", "requirements-train.txt"),
    "adapters/kafka": ("serving/requirements-kafka.txt",),
    "adapters/redis": ("serving/requirements.txt",),
    "adapters/tracing": ("serving/requirements.txt", "requirements-traces.txt"),
    "adapters/scoring": ("requirements.txt", "requirements-train.txt"),
    "serving": ("serving/requirements-kafka.txt", "serving/requirements-formats.txt"),
    "serving/gateway": ("serving/requirements-gateway.txt",),
    "models": ("requirements-train.txt",),
    "evaluation": ("requirements.txt", "requirements-train.txt"),
    "schemas": ("serving/requirements.txt", "requirements-shared.txt"),
    "schemas/wire": ("serving/requirements.txt", "serving/requirements-formats.txt"),
    "udfs": ("requirements.txt",),
    "jobs": ("requirements.txt",),
    "privacy": ("requirements.txt",),
    "freshet": ("requirements.txt",),
    "deploy": ("requirements-demo.txt",),
    "bench": ("requirements-dev.txt",),
    "tests": ("requirements-dev.txt",),
}
"""A room → the files with what it needs; a folder in a room may be a room of its own."""
OURS = {room.partition("/")[0] for room in NEEDS}
LOADED_BY_OTHERS = {"crc32c", "lz4", "python-snappy", "zstandard"}  # by Kafka's client
COMMANDS = {"ruff", "mypy", "mkdocs-material"}
PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")
ORIGIN = packages_distributions()


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def pins(file: Path) -> Iterator[tuple[str, str]]:
    """The pins of `file` itself."""
    for line in file.read_text().splitlines():
        if line and not line.startswith(("#", "-r ", "-c ")):
            pin = PIN.fullmatch(line)
            assert pin is not None, f"{file.name}: {line} is no pin"
            yield canonical(pin[1]), pin[2]


@functools.cache
def declared(file: Path) -> set[str]:
    """The packages that `file` installs, without their own dependencies."""
    included = [line[3:] for line in file.read_text().splitlines() if line.startswith("-r ")]
    return {name for name, _ in pins(file)}.union(*(declared(file.parent / other) for other in included))


@functools.cache
def imported(text: str) -> frozenset[str]:
    """The third-party packages that a module imports, anywhere in it."""
    found = set[str]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return frozenset({name.partition(".")[0] for name in found} - sys.stdlib_module_names - OURS)


def room_of(path: str) -> str:
    return max((room for room in NEEDS if path.startswith(f"{room}/")), key=len)


def undeclared(files: dict[str, str]) -> list[str]:
    """`path: package` for each import that no requirements file of the folder declares."""
    found = []
    for path, text in files.items():
        known = set().union(*(declared(ROOT / file) for file in NEEDS[room_of(path)]))
        for name in sorted(imported(text)):
            if known.isdisjoint(canonical(origin) for origin in ORIGIN.get(name, [name])):
                found.append(f"{path}: {name}")
    return found


def product_code() -> dict[str, str]:
    paths = [path for top in sorted(OURS) for path in sorted((ROOT / top).rglob("*.py"))]
    # `adapters/` itself is not a folder of modules: it contains only `__init__.py`.
    return {name: path.read_text() for path in paths if (name := path.relative_to(ROOT).as_posix()) and in_a_room(name)}


def in_a_room(path: str) -> bool:
    """Whether what a module imports must be declared: exporters of golden models need what nobody else does."""
    return not path.startswith("tests/golden/") and any(path.startswith(f"{room}/") for room in NEEDS)


def requirements() -> list[Path]:
    return [*ROOT.glob("requirements*.txt"), *(ROOT / "serving").glob("requirements*.txt")]


def test_imports_are_declared_for_their_room() -> None:
    files = product_code()
    assert len(files) > 300, "the walk finds the code at all"
    assert undeclared(files) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("serving/x.py", "import redis"),
        ("serving/gateway/x.py", "def f():\n    from pyflink.common import Types"),
        ("adapters/redis/x.py", "from kafka import KafkaConsumer"),
        ("models/x.py", "import kafka"),
        ("jobs/x.py", "import psutil"),
        ("udfs/x.py", "import requests"),
        ("tests/x.py", "import no_such_package"),
    ],
)
def test_an_import_that_is_not_declared_is_found(path: str, text: str) -> None:
    assert len(undeclared({path: text})) == 1


def test_each_package_is_pinned_once_and_as_constrained() -> None:
    found = [pin for file in requirements() for pin in pins(file)]
    assert [name for name, count in Counter(name for name, _ in found).items() if count > 1] == []
    constrained = dict(pins(ROOT / "constraints.txt"))
    assert {name: version for name, version in found if constrained[name] != version} == {}


def test_every_declared_package_is_imported() -> None:
    used = {canonical(origin) for text in product_code().values() for name in imported(text) for origin in ORIGIN[name]}
    names = {name for file in requirements() for name, _ in pins(file)}
    assert names - used == LOADED_BY_OTHERS | COMMANDS


def test_development_installs_everything() -> None:
    assert declared(ROOT / "requirements-dev.txt") == {name for file in requirements() for name, _ in pins(file)}
