"""Names, from the syntax trees: each class name is unique, and a module name occurs twice at most."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = (
    "schemas",
    "adapters",
    "models",
    "evaluation",
    "udfs",
    "jobs",
    "privacy",
    "serving",
    "bench",
    "deploy",
    "freshet",
)
MODULES_OF_ONE_NAME_MAX = 2
MAKE_CLASSES = {"NamedTuple", "namedtuple", "defstruct", "make_dataclass", "TypedDict", "NewType", "Enum"}
NAMED_BY_PYTHON = {"__init__", "__main__"}


def product_code() -> dict[str, str]:
    """path → text."""
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def classes_of(text: str) -> Iterator[str]:
    """The names of all classes in `text`, anywhere, however they are defined."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and makes_a_class(node.value):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def makes_a_class(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in MAKE_CLASSES


def repeated_classes(files: dict[str, str]) -> dict[str, list[str]]:
    """Class name → its files, for names defined more than once."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, text in files.items():
        for name in classes_of(text):
            found[name].append(path)
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def repeated_modules(files: dict[str, str]) -> dict[str, list[str]]:
    """Module name → its files, for names with more than two."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in files:
        found[Path(path).stem].append(path)
    return {
        name: paths
        for name, paths in found.items()
        if len(paths) > MODULES_OF_ONE_NAME_MAX and name not in NAMED_BY_PYTHON
    }


def test_class_names_are_unique() -> None:
    files = product_code()
    assert len(files) > 200, "the walk finds the code at all"
    assert repeated_classes(files) == {}


def test_module_names_occur_twice_at_most() -> None:
    assert repeated_modules(product_code()) == {}


def test_repeated_class_names_are_found_in_every_form() -> None:
    files = {
        "udfs/a.py": "class Seen(NamedTuple): ...",
        "privacy/a.py": "def f():\n    class Seen: ...",
        "jobs/a.py": "Seen = typing.NamedTuple('Seen', [])\nOther = msgspec.defstruct('Other', [])",
        "jobs/b.py": "class Other(msgspec.Struct): ...",
    }
    assert repeated_classes(files) == {
        "Seen": ["udfs/a.py", "privacy/a.py", "jobs/a.py"],
        "Other": ["jobs/a.py", "jobs/b.py"],
    }
    assert repeated_modules(files) == {"a": ["udfs/a.py", "privacy/a.py", "jobs/a.py"]}
