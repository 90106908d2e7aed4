"""The direction of dependencies, the purity of rules and the length of functions, from the syntax trees."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import pytest

ROOT = Path(__file__).parents[2]

# What each folder may import from; nested folders have their own entries.
MAY_IMPORT = {
    # Data types do not depend on their serialisation.
    "schemas": {"schemas"},
    "schemas.wire": {"schemas", "schemas.wire"},
    "models": {"schemas", "models", "models.interactions"},
    # Training reads exports; no part of the job does.
    "models.interactions": {"schemas", "models", "adapters"},
    # Clients of external systems, without business rules. A registry has schemas of wire formats.
    "adapters": {"schemas", "schemas.wire", "adapters"},
    "udfs": {"schemas", "schemas.wire", "models", "udfs"},
    "jobs": {"schemas", "schemas.wire", "models", "udfs", "jobs", "adapters"},
    # Evaluation runs the job's rules offline; no part of the job does that.
    "evaluation": {"schemas", "models", "models.interactions", "udfs", "evaluation"},
    "serving": {"schemas", "schemas.wire", "serving", "adapters"},
    # `privacy/access.py` collects the same data as the gateway.
    "privacy": {"schemas", "schemas.wire", "udfs", "jobs", "serving", "adapters", "privacy", "privacy.rules"},
    "privacy.rules": {"schemas", "udfs", "privacy.rules"},
    "freshet": {"freshet", "freshet.cli"},
    # Names for type checkers; `test_client_sources.py` checks that importing it imports nothing.
    "freshet.__init__": {"schemas", "schemas.wire", "serving", "adapters"},
    "freshet.cli": {
        "schemas",
        "schemas.wire",
        "models",
        "models.interactions",
        "evaluation",
        "udfs",
        "jobs",
        "serving",
        "adapters",
        "privacy",
        "freshet",
        "freshet.cli",
        "bench",
        "deploy",
    },
}
FOLDERS = {room.partition(".")[0] for room in MAY_IMPORT}
OURS = FOLDERS | {"bench", "deploy", "tests"}
ONLY_IN = {
    "pyflink": ("udfs/operators/", "jobs/"),
    "onnxruntime": ("models/scorer.py", "models/quantised_forms.py"),
    "grpc": ("adapters/scoring/",),
    "redis": (),
    "hiredis": ("adapters/redis/", "serving/"),
    "http.client": ("adapters/http_client.py",),
    "urllib.request": (),
    "requests": (),
    "httpx": (),
    "argparse": ("jobs/personalise.py",),
    "typer": ("freshet/cli/",),
}
# Names that give access to files, the environment or the system's randomness.
OUTSIDE = {
    "codecs",
    "fileinput",
    "glob",
    "importlib",
    "io",
    "mmap",
    "os",
    "pathlib",
    "pkgutil",
    "secrets",
    "shutil",
    "subprocess",
    "tempfile",
}
INSIDE = {"io.BytesIO", "pathlib.PurePath"}
OPENING = {"open", "__import__", "eval", "exec"}
# Secrets are read in one folder. The gateway's server passes the location of the settings to its processes.
READS_ENVIRONMENT = ("adapters/secrets/", "serving/gateway/app.py", "serving/gateway/server.py")
WITHOUT_OUTSIDE = ("schemas/", "udfs/", "privacy/rules/")
# Must be the first import in a worker, so nothing of ours may come before it.
KEEPS_SOURCES = "udfs/__init__.py"
IMPURE = {"time", "random", "datetime", "secrets", "uuid", "threading", "asyncio"}
PURE = ("udfs/", "privacy/rules/")
IMPURE_ALLOWED = ("udfs/operators/",)
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_P90 = 25
FILE_LINES_P90 = 300


def sources(*folders: str) -> dict[str, str]:
    """path → text of our own code."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


@functools.lru_cache(maxsize=1)
def nodes(text: str) -> tuple[ast.AST, ...]:
    """All nodes of a file. Rules ask about one file after the other, so the last one is kept."""
    return tuple(ast.walk(ast.parse(text)))


def imported(text: str) -> Iterator[str]:
    """The dotted names of everything a file imports, anywhere; `from a import b` is `a.b`, as b may be a module."""
    for node in nodes(text):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." if node.level else f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The innermost folder rule for `module`: its top-level folder, if no inner one has a rule."""
    return max((name for name in MAY_IMPORT if f"{module}.".startswith(f"{name}.")), key=len, default=top(module))


def top(module: str) -> str:
    return module.partition(".")[0] or module


def violations(files: dict[str, str]) -> list[str]:
    """The violations of the rules, one line each."""
    found = []
    for path, text in files.items():
        here, names = room(path.removesuffix(".py").replace("/", ".")), set(imported(text))
        if "." in names:
            found.append(f"{path}: a relative import hides where it leads")
        for name in sorted({room(name) for name in names if top(name) in OURS} - MAY_IMPORT[here]):
            found.append(f"{path}: {here} must not import {name}")
        for name, places in ONLY_IN.items():
            if any(f"{one}.".startswith(f"{name}.") for one in names) and not path.startswith(places):
                found.append(f"{path}: {name} belongs in {', '.join(places) or 'no room'}")
        for name in sorted({top(name) for name in names}):
            if path.startswith(PURE) and name in IMPURE and not path.startswith(IMPURE_ALLOWED):
                found.append(f"{path}: a rule must not import {name}: time arrives with the event")
        if path.startswith(WITHOUT_OUTSIDE) and path != KEEPS_SOURCES:
            found += [f"{path}: {name} reaches files or the environment, which adapters do" for name in outside(text)]
        if reads_environment(text) and not path.startswith(READS_ENVIRONMENT):
            found.append(f"{path}: the environment is read in adapters/secrets")
    return found


def reads_environment(text: str) -> bool:
    """Whether a module reads environment variables."""
    named = {getattr(node, "attr", getattr(node, "id", "")) for node in nodes(text)}
    bound = {name.rpartition(".")[2] for name in imported(text) if top(name) == "os"}
    return not (named | bound).isdisjoint({"environ", "environb", "getenv", "getenvb"})


def outside(text: str) -> list[str]:
    """The names by which a module reaches files, the environment or the system's randomness."""
    names = {name for name in imported(text) if top(name) in OUTSIDE and name not in INSIDE}
    return sorted(names | {node.id for node in nodes(text) if isinstance(node, ast.Name)} & OPENING)


def function_lengths(files: dict[str, str]) -> dict[str, int]:
    """`path:function` → lines from `def` to its end."""
    return {
        f"{path}:{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, text in files.items()
        for node in nodes(text)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_dependencies_point_one_way() -> None:
    files = sources(*sorted(FOLDERS))
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
        ("udfs/operators/x.py", "from adapters.redis.store import RedisStore"),
        ("models/x.py", "import adapters.kafka.reading"),
        ("udfs/x.py", "from models.interactions import read"),
        ("adapters/x.py", "from udfs import store"),
        ("jobs/x.py", "import tests.support.naive"),
        ("jobs/x.py", "from bench.ablation import UncheckedOperator"),
        ("udfs/x.py", "import bench.ablation"),
        ("serving/x.py", "from bench import ablation"),
        ("udfs/x.py", "import time"),
        ("udfs/x.py", "from random import random"),
        ("udfs/x.py", "if True:\n    import datetime as d"),
        ("udfs/x.py", "from . import state"),
        ("schemas/x.py", "from schemas.wire import codecs"),
        ("schemas/x.py", "import schemas.wire.codecs"),
        ("privacy/rules/x.py", "from privacy import access"),
        ("privacy/rules/x.py", "from jobs.settings import Settings"),
        ("privacy/rules/x.py", "import time"),
        ("jobs/x.py", "from privacy.rules import erasure"),
        ("serving/x.py", "from privacy.access import held"),
        ("jobs/x.py", "from freshet.cli.main import run"),
        ("privacy/x.py", "import typer"),
        ("privacy/x.py", "from argparse import ArgumentParser"),
        ("freshet/x.py", "import serving.reader"),
        ("jobs/x.py", "import http.client"),
        ("serving/x.py", "from http import client"),
        ("privacy/x.py", "from urllib.request import urlopen"),
        ("adapters/flink/x.py", "import http.client"),
        ("schemas/wire/x.py", "from adapters.schema_sources import source_at"),
        ("schemas/x.py", "import os"),
        ("schemas/x.py", "from os import path"),
        ("schemas/x.py", "from pathlib import Path"),
        ("schemas/x.py", "import pathlib as p"),
        ("schemas/x.py", "def f(path):\n    return open(path).read()"),
        ("schemas/x.py", "opened = open"),
        ("schemas/wire/x.py", "from io import FileIO"),
        ("schemas/x.py", "from secrets import token_hex"),
        ("udfs/x.py", "import os"),
        ("udfs/operators/x.py", "from pathlib import Path"),
        ("privacy/rules/x.py", "import tempfile"),
        ("adapters/kafka/x.py", "import os\nPASSWORD = os.environ['PASSWORD']"),
        ("jobs/x.py", "from os import environ"),
        ("serving/gateway/x.py", "import os as o\n\ndef f():\n    return o.getenv('TOKEN')"),
    ],
)
def test_layering_violation_is_found(path: str, text: str) -> None:
    assert len(violations({path: text})) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("udfs/operators/x.py", "import pyflink, time"),
        ("serving/x.py", "import hiredis"),
        ("adapters/redis/x.py", "import hiredis, socket, time"),
        ("jobs/x.py", "import pyflink.table, udfs.state, models.scorer"),
        ("jobs/x.py", "from http import HTTPStatus\nfrom urllib.parse import quote"),
        ("models/scorer.py", "import onnxruntime"),
        ("schemas/x.py", "from io import BytesIO\nfrom pathlib import PurePath"),
        ("udfs/operators/x.py", "class C:\n    def open(self): ...\n\ndef f(c):\n    c.open()"),
        ("adapters/secrets/x.py", "import os\nfrom pathlib import Path"),
    ],
)
def test_allowed_imports_pass_layering(path: str, text: str) -> None:
    assert violations({path: text}) == []


STARTS_THREADS = {"Thread", "Timer", "ThreadPoolExecutor", "start_new_thread"}
# The second asks brokers for their addresses, at submission.
MAY_START_THREADS = ("schemas/threads.py", "adapters/kafka/reachability.py")


def called(text: str) -> set[str]:
    """The last names of all that a file calls."""
    calls = [node.func for node in nodes(text) if isinstance(node, ast.Call)]
    return {getattr(func, "attr", getattr(func, "id", "")) for func in calls}


def bare_threads(files: dict[str, str]) -> list[str]:
    """The files that start threads with an empty context: numpy warns of overflow in them."""
    return [
        path
        for path, text in files.items()
        if not path.startswith(MAY_START_THREADS) and not STARTS_THREADS.isdisjoint(called(text))
    ]


def unprepared(files: dict[str, str]) -> tuple[int, list[str]]:
    """How many operators there are, and those whose `open` does not begin with `prepare()`."""
    opened = [
        (path, node.body[1])
        for path, text in files.items()
        for node in nodes(text)
        if isinstance(node, ast.FunctionDef) and node.name == "open"
    ]
    return len(opened), [path for path, second in opened if ast.unparse(second) != "prepare()"]


def test_every_operator_and_thread_of_the_job_ignores_floating_point_errors() -> None:
    assert unprepared(sources("udfs/operators")) == (6, [])
    assert bare_threads(sources("schemas", "models", "udfs", "jobs", "adapters")) == []


def test_unprepared_operator_and_bare_thread_are_found() -> None:
    text = "def open(self, context):\n    'Opens.'\n    self.a = 1"
    assert unprepared({"x.py": text}) == (1, ["x.py"])
    assert bare_threads({"x.py": "import threading as t\nt.Thread(target=f)"}) == ["x.py"]


def test_functions_and_files_stay_short() -> None:
    files = sources(*sorted(FOLDERS), "bench", "deploy")
    lengths = function_lengths(files)
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}
    assert quantiles(lengths.values(), n=10)[-1] <= FUNCTION_LINES_P90
    assert quantiles((text.count("\n") for text in files.values()), n=10)[-1] <= FILE_LINES_P90


def test_a_long_function_is_found() -> None:
    long = "class C:\n    def f(self):\n" + "        pass\n" * FUNCTION_LINES_MAX
    assert list(function_lengths({"x.py": long}).values()) == [FUNCTION_LINES_MAX + 1]
