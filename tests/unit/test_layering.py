"""The direction of dependencies, the purity of rules and the length of functions, read from the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import pytest

ROOT = Path(__file__).parents[2]

MAY_IMPORT = {
    "schemas": {"schemas"},
    "models": {"schemas", "models"},
    # What is outside of us and speaks a protocol of its own; no business in it.
    "adapters": {"schemas", "adapters"},
    "udfs": {"schemas", "models", "udfs", "adapters"},
    # `jobs.access` prints what the gateway answers.
    "jobs": {"schemas", "models", "udfs", "jobs", "serving", "adapters"},
    "serving": {"schemas", "serving", "adapters"},
}
OURS = {"adapters", "schemas", "models", "udfs", "jobs", "serving", "bench", "deploy", "tests"}
ONLY_IN = {
    "pyflink": ("udfs/operators/", "jobs/"),
    "onnxruntime": ("models/scorer.py",),
    "redis": (),
    "adapters": ("adapters/", "udfs/store.py", "udfs/operators/", "jobs/", "serving/"),
    "hiredis": ("adapters/redis/", "serving/"),
}
IMPURE = {"time", "random", "datetime", "secrets", "uuid", "threading", "asyncio"}
IMPURE_ALLOWED = ("udfs/store.py", "udfs/operators/")
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_P90 = 25
FILE_LINES_P90 = 300


def sources(*folders: str) -> dict[str, str]:
    """path → text of our own code."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def imported(text: str) -> Iterator[str]:
    """The top-level names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else str(node.module).partition(".")[0]


def violations(files: dict[str, str]) -> list[str]:
    """What breaks the rules, a line each."""
    found = []
    for path, text in files.items():
        folder = path.partition("/")[0]
        for name in sorted(set(imported(text))):
            if name == ".":
                found.append(f"{path}: a relative import hides where it leads")
            if name in OURS and name not in MAY_IMPORT[folder]:
                found.append(f"{path}: {folder} must not import {name}")
            if name in ONLY_IN and not path.startswith(ONLY_IN[name]):
                found.append(f"{path}: {name} belongs in {', '.join(ONLY_IN[name])}")
            if folder == "udfs" and name in IMPURE and not path.startswith(IMPURE_ALLOWED):
                found.append(f"{path}: a rule must not import {name}: time arrives with the event")
    return found


def function_lengths(files: dict[str, str]) -> dict[str, int]:
    """`path:function` → lines from `def` to its end."""
    return {
        f"{path}:{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_dependencies_point_one_way() -> None:
    files = sources(*MAY_IMPORT)
    assert len(files) > 40, "the walk finds the code at all"
    assert violations(files) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("schemas/x.py", "import udfs.state"),
        ("schemas/x.py", "def f():\n    from models import graph"),
        ("models/x.py", "from udfs.state import UserState"),
        ("udfs/x.py", "import jobs"),
        ("serving/x.py", "from udfs import store"),
        ("serving/x.py", "import pyflink"),
        ("udfs/x.py", "from pyflink.common import Types"),
        ("udfs/x.py", "import onnxruntime as ort"),
        ("udfs/ranking.py", "import redis"),
        ("udfs/ranking.py", "from hiredis import pack_command"),
        ("udfs/ranking.py", "from adapters.redis.client import RedisClient"),
        ("adapters/x.py", "from udfs import store"),
        ("jobs/x.py", "import tests.support.naive"),
        ("jobs/x.py", "from bench.ablation import UncheckedOperator"),
        ("udfs/x.py", "import bench.ablation"),
        ("serving/x.py", "from bench import ablation"),
        ("udfs/x.py", "import time"),
        ("udfs/x.py", "from random import random"),
        ("udfs/x.py", "if True:\n    import datetime as d"),
        ("udfs/x.py", "from . import state"),
    ],
)
def test_a_planted_violation_is_found(path: str, text: str) -> None:
    assert len(violations({path: text})) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("udfs/operators/x.py", "import pyflink, time"),
        ("udfs/store.py", "import adapters.redis.client, time"),
        ("serving/x.py", "import hiredis"),
        ("adapters/redis/x.py", "import hiredis, socket, time"),
        ("jobs/x.py", "import pyflink.table, udfs.state, models.scorer"),
        ("models/scorer.py", "import onnxruntime"),
    ],
)
def test_what_is_allowed_is_not_complained_of(path: str, text: str) -> None:
    assert violations({path: text}) == []


def test_functions_and_files_stay_short() -> None:
    files = sources(*MAY_IMPORT, "bench", "deploy")
    lengths = function_lengths(files)
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}
    assert quantiles(lengths.values(), n=10)[-1] <= FUNCTION_LINES_P90
    assert quantiles((text.count("\n") for text in files.values()), n=10)[-1] <= FILE_LINES_P90


def test_a_long_function_is_found() -> None:
    long = "class C:\n    def f(self):\n" + "        pass\n" * FUNCTION_LINES_MAX
    assert list(function_lengths({"x.py": long}).values()) == [FUNCTION_LINES_MAX + 1]
