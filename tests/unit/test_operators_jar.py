"""The jar of the Java operators belongs to its release and to the Flink that runs it."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import freshet
from deploy.local import build_operators, fetch_jars
from deploy.package import build
from jobs import operators_jar
from jobs.operators_jar import NAME, SOURCES, check_sources, sources_digest
from schemas.errors import SettingsError

ROOT = Path(__file__).parents[2]
POM = (ROOT / "jobs" / "java" / "pom.xml").read_text(encoding="utf-8")


@pytest.fixture
def uncached() -> Iterator[None]:
    operators_jar.operators_jar.cache_clear()
    yield
    operators_jar.operators_jar.cache_clear()


def versions_in(pom: str) -> dict[str, str]:
    return dict(re.findall(r"<(\w+)\.version>([^<]+)<", pom))


def jar_of(path: Path, manifest: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", manifest)
    return path


def test_the_operators_are_compiled_with_the_flink_that_runs_them() -> None:
    found = versions_in(POM)
    assert found["flink"] == version("apache-flink")
    pinned = fetch_jars.read_sums(ROOT / "deploy" / "local" / "jars" / "SHA256SUMS")
    assert f"flink/zstd-jni-{found['zstd']}.jar" in pinned
    assert f"<version>{freshet.__version__}</version>" in POM


def test_jars_for_compiling_and_testing_are_pinned() -> None:
    pinned = fetch_jars.read_sums(build_operators.SUMS)
    assert build_operators.jars_used() == pinned
    assert f"flink-runtime-{version('apache-flink')}-tests.jar" in pinned


@pytest.mark.parametrize(
    ("manifest", "built_from"),
    [(f"{SOURCES}: 0123456789abcdef\r\n", "0123456789abcdef"), ("Created-By: hand\r\n", "unknown")],
)
def test_a_jar_of_another_release_is_refused(tmp_path: Path, manifest: str, built_from: str) -> None:
    jar = jar_of(tmp_path / "freshet-operators.jar", manifest)
    with pytest.raises(SettingsError, match=rf"other sources \({built_from}\) .* remove it and run `make setup`"):
        check_sources(jar)


def test_file_that_is_not_a_jar_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "freshet-operators.jar"
    broken.write_bytes(b"half a jar")
    with pytest.raises(SettingsError, match="unknown"):
        check_sources(broken)


def test_a_jar_of_this_release_is_taken(tmp_path: Path) -> None:
    check_sources(jar_of(tmp_path / "freshet-operators.jar", f"{SOURCES}: {sources_digest()}\r\n"))


@pytest.mark.usefixtures("uncached")
def test_a_job_without_its_jar_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators_jar, "NAME", "java/target/no.jar")
    with pytest.raises(SettingsError, match="not built: `make setup` builds"):
        build(tmp_path / "freshet.zip")
    assert list(tmp_path.iterdir()) == []


def test_the_jar_travels_with_the_job_and_is_a_file_there(tmp_path: Path) -> None:
    package = build(tmp_path / "freshet.zip")
    built = (ROOT / "jobs" / NAME).read_bytes()
    assert zipfile.ZipFile(package).read(f"jobs/{NAME}") == built
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from jobs.operators_jar import operators_jar\n"
        "jar = operators_jar(); print(jar, len(jar.read_bytes()))"
    )
    words = [sys.executable, "-I", "-c", code, str(package)]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert int(told[1]) == len(built)
    assert not Path(told[0]).exists(), "it was extracted, and goes away with the process"
