"""The Lua scripts: each file is used, and all archives contain them."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

from adapters.redis import scripts
from adapters.redis.scripts import WITHDRAW, Script
from deploy.client.wheel import build_wheel
from deploy.package import ROOT, build
from jobs.release import SUFFIXES, digest
from schemas.topics import DAY_MS

LUA = ROOT / "adapters" / "redis" / "lua"
PUBLISHED = ROOT / "schemas" / "wire" / "published" / "read_list.lua"
SHAS = "from {}adapters.redis import scripts as s; print(*(one.sha for one in vars(s).values() if hasattr(one, 'sha')))"


def shas() -> list[str]:
    return [one.sha for one in vars(scripts).values() if isinstance(one, Script)]


def shas_from(archive: Path, package: str = "") -> list[str]:
    """The SHAs of the scripts if only `archive` is on the import path."""
    code = SHAS.format(package)
    command = [sys.executable, "-c", f"import sys; sys.path[0] = {str(archive)!r}; {code}"]
    return subprocess.run(command, cwd=archive.parent, capture_output=True, text=True, check=True).stdout.split()


def test_every_file_is_loaded_or_included() -> None:
    texts = [one.text for one in vars(scripts).values() if isinstance(one, Script)]
    for path in LUA.iterdir():
        body = path.read_text().partition("-- include")[0]
        assert sum(body in text for text in texts) >= 1, path.name
    assert not [text for text in texts if "-- include" in text]


def test_lua_code_is_only_in_lua_files() -> None:
    for path in [path for folder in ("adapters", "schemas", "udfs", "privacy", "serving") for path in rglob(folder)]:
        strings = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        assert not [text for text in strings if isinstance(text, str) and "redis.call(" in text], path


def rglob(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_the_published_script_is_the_one_that_readers_run() -> None:
    assert scripts.READ_LIST.text == PUBLISHED.read_text()


def test_a_clock_may_be_a_day_behind() -> None:
    assert f"now - {DAY_MS} " in WITHDRAW.text


def test_job_zip_contains_the_lua_scripts(tmp_path: Path) -> None:
    assert shas_from(build(tmp_path / "job.zip")) == shas()


def test_wheel_contains_the_lua_scripts(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    assert shas_from(wheel, "freshet._client.") == shas()
    with zipfile.ZipFile(wheel) as archive:
        assert {Path(name).name for name in archive.namelist() if name.endswith(".lua")} == {
            PUBLISHED.name,
            *(path.name for path in LUA.iterdir()),
        }


def test_lua_scripts_are_part_of_the_release_digest() -> None:
    assert digest() != digest(suffixes=tuple(suffix for suffix in SUFFIXES if suffix != ".lua"))
