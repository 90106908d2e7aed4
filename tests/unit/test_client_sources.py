"""The contents of the client library, and how its imports are rewritten.

`tests/contract/test_client_wheel.py` installs it.
"""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import freshet
from deploy.client import wheel
from deploy.client.sources import (
    ROOT,
    client_modules,
    client_sources,
    dependencies,
    imports,
    third_party,
    with_moved_imports,
)
from deploy.client.wheel import EXTRAS, build_wheel, check_declared, pins
from deploy.client.wheel_errors import WheelError

OURS = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"freshet"}


def test_star_import_gives_all_public_names_that_are_installed() -> None:
    code = "import sys; {}; from freshet import *; print(*sorted(dir()))"
    for hide, has_events in (("", True), ("sys.modules['kafka'] = None", False)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(hide or "0")], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = set(done.stdout.split())
        assert {"Reader", "load_key_ring", "FreshetError"} <= names and ("EventProducer" in names) == has_events


@pytest.mark.parametrize("name", ["Reader", "Consents", "EventProducer", "Catalogue"])
def test_clients_are_context_managers_that_close(name: str) -> None:
    kind = getattr(freshet, name)
    closed: list[str] = []
    client = type("Closing", (kind,), {"__init__": lambda self: None, "close": lambda self: closed.append(name)})()
    with client as entered:
        assert entered is client and not closed
    assert closed == [name]


def a_tree(root: Path, **files: str) -> Path:
    """Modules below `root`: `serving__reader` is `serving/reader.py`."""
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    for extra, path in EXTRAS.items():
        (root / path).write_text("msgspec==0.22.0\n" if not extra else "")
    return root


def unmoved(text: str) -> list[str]:
    return [one.name for one in imports(text) if one.name.partition(".")[0].rstrip(".") in OURS]


def test_importing_freshet_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import freshet; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names) == {"freshet"}


def test_every_public_name_is_offered_lazily_and_to_type_checkers() -> None:
    typed = {("serving.events", "EventProducer", "Events")} | {
        (node.module, alias.name, alias.asname)
        for node in ast.walk(ast.parse((ROOT / "freshet" / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module not in ("importlib", "typing")
        for alias in node.names
    }
    lazy = {
        (module, freshet._ALIASES.get(name, name), name) for module, names in freshet.PUBLIC.items() for name in names
    }
    assert lazy == typed
    for _, there, here in lazy:
        assert getattr(freshet, here).__name__ == there
        assert here in dir(freshet)
    with pytest.raises(AttributeError, match="Raeder"):
        freshet.Raeder  # type: ignore[attr-defined]  # noqa: B018


def test_client_library_has_neither_gateway_nor_command_line_nor_job() -> None:
    found = client_modules(ROOT, freshet.PUBLIC)
    assert {"serving.reader", "serving.async_reader", "serving.consents", "schemas.wire.avro_codec"} < found.keys()
    assert {name.partition(".")[0] for name in found} == {"schemas", "adapters", "serving"}
    assert not [name for name in found if name.startswith("serving.gateway")]
    assert third_party(ROOT, found.values()) == {"msgspec", "hiredis", "kafka", "fastavro", "google"}


def test_wheel_has_no_unmoved_import_of_ours() -> None:
    for name, text in client_sources(ROOT, freshet.PUBLIC).items():
        assert not name.endswith(".py") or unmoved(text) == [], name
    assert unmoved("def f():\n    from schemas import lists") == ["schemas"]


def test_modules_are_found_by_their_imports(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        serving__reader="from schemas import lists\nimport json\n",
        serving__gateway="import fastapi\n",
        schemas__lists="def f():\n    from schemas.wire.codecs import decode\n",
        schemas__wire__codecs="decode = 1\n",
    )
    expected = ["schemas", "schemas.lists", "schemas.wire", "schemas.wire.codecs", "serving", "serving.reader"]
    assert list(dependencies(root, ["serving.reader"])) == expected


def test_imports_are_moved_and_nothing_else() -> None:
    names = ("schemas", "schemas.lists", "schemas.wire.codecs")
    text = (
        '"""See schemas.lists: from schemas import lists."""\n'
        "import schemas.lists as lists, json\n"
        "from schemas import wire\n"
        "from schemas_of_others import x\n"
        "def f():\n    é = 1; from schemas.wire.codecs import (\n        a,\n    )\n"
        "HOME = {'schemas.lists': 1, 'schemas': 2}\n"
    )
    assert with_moved_imports(text, names, ["schemas.lists"]) == (
        '"""See schemas.lists: from schemas import lists."""\n'
        "import freshet._client.schemas.lists as lists, json\n"
        "from freshet._client.schemas import wire\n"
        "from schemas_of_others import x\n"
        "def f():\n    é = 1; from freshet._client.schemas.wire.codecs import (\n        a,\n    )\n"
        "HOME = {'freshet._client.schemas.lists': 1, 'schemas': 2}\n"
    )


@pytest.mark.parametrize("text", ["import schemas.lists", "import schemas", "from . import lists"])
def test_imports_that_cannot_be_moved_are_refused(text: str) -> None:
    with pytest.raises(WheelError, match="line 1"):
        with_moved_imports(text, ("schemas", "schemas.lists"))


@pytest.mark.parametrize(
    "text", ["import pyflink.common as c", "def f():\n    import typer", "from redis import Redis"]
)
def test_package_that_is_not_declared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(wheel, "PUBLIC", {"serving.reader": ("Reader",)})
    check_declared(a_tree(tmp_path, serving__reader="import msgspec"))
    with pytest.raises(WheelError, match=r"imports (pyflink|typer|redis), which none of"):
        check_declared(a_tree(tmp_path, serving__reader=text))


def test_module_that_needs_the_command_line_is_refused(tmp_path: Path) -> None:
    root = a_tree(tmp_path, serving__reader="from freshet.cli import main", freshet__cli__main="import typer")
    with pytest.raises(WheelError, match="freshet"):
        client_modules(root, {"serving.reader": ()})


def test_pinned_version_is_the_least_and_the_next_major_is_excluded(tmp_path: Path) -> None:
    assert dict(pins(a_tree(tmp_path, serving__reader=""), "")) == {"msgspec": ">=0.22.0,<1"}
    (tmp_path / EXTRAS[""]).write_text("msgspec\n")
    with pytest.raises(WheelError, match="not a pin"):
        list(pins(tmp_path, ""))


def test_same_sources_give_same_bytes(tmp_path: Path) -> None:
    one, other = build_wheel(tmp_path / "one"), build_wheel(tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()
    assert one.name == f"freshet_client-{freshet.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(one) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {
            "freshet",
            f"freshet_client-{freshet.__version__}.dist-info",
        }
        assert not [name for name in archive.namelist() if name.startswith(("freshet/cli", "freshet/__main__"))]
