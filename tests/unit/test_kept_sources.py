"""Workers keep the sources that Flink deletes at the end of an attempt."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.package import build
from jobs.release import PACKAGES, digest
from tests.unit.test_lua_scripts import ROOT
from udfs import _OURS

ATTEMPT = """
import shutil, sys
first, second = sys.argv[1:]
sys.path.append(first)
{before}
shutil.rmtree(first.partition("/python-files/")[0])
sys.path.append(second)
import udfs.ingest, models.scorer
from adapters.redis import scripts
from jobs.release import RELEASE, digest
assert digest() == RELEASE
print(RELEASE, len(scripts.WRITE_LIST.text), udfs.ingest.__file__)
"""


def attempts(folder: Path, unpacked: bool) -> list[Path]:
    """The sources of two attempts, as Flink lays them out: unpacked, or as the zip that was submitted."""
    places = [folder / f"python-dist-{number}" / "python-files" / "blob_p-1" / "freshet.zip" for number in range(2)]
    package = build(folder / "freshet.zip")
    for place in places:
        place.parent.mkdir(parents=True)
        if unpacked:
            shutil.unpack_archive(package, place)
        else:
            shutil.copy(package, place)
    return places


def run(folder: Path, unpacked: bool, before: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-I", "-c", ATTEMPT.format(before=before), *map(str, attempts(folder, unpacked))]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unpacked", [True, False], ids=["folder", "zip"])
@pytest.mark.parametrize(
    "before", ["import udfs", "import jobs", "import schemas, udfs.operators", "import schemas.ids, jobs"]
)
def test_an_attempt_finds_its_code_after_an_earlier_one_ended_while_importing(
    tmp_path: Path, unpacked: bool, before: str
) -> None:
    ended = run(tmp_path, unpacked, before)
    assert ended.returncode == 0, ended.stderr
    release, script, place = ended.stdout.split()
    assert release == digest()
    assert int(script) > 1_000
    assert place.startswith("/proc/self/fd/")


def test_sources_that_disappear_while_they_are_read_are_not_kept(tmp_path: Path) -> None:
    before = (
        "import pathlib, zipfile\n"
        "write = zipfile.ZipFile.write\n"
        "def vanish(self, path, name):\n"
        "    write(self, path, name)\n"
        "    shutil.rmtree(pathlib.Path(first) / 'schemas', ignore_errors=True)\n"
        "zipfile.ZipFile.write = vanish\n"
        "try:\n"
        "    import jobs\n"
        "except (ImportError, FileNotFoundError):\n"
        "    zipfile.ZipFile.write = write\n"
        "else:\n"
        "    raise SystemExit('half of the sources were kept')\n"
    )
    ended = run(tmp_path, True, before)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[0] == digest()


def test_all_code_of_the_job_is_kept_and_elsewhere_nothing_is() -> None:
    assert sorted(_OURS) == sorted(PACKAGES)
    import udfs

    assert udfs.__file__ == str(ROOT / "udfs" / "__init__.py")
