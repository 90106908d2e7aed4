"""The gateway's server on other uvicorn releases than the pinned one: it overrides undocumented methods."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = "tests/unit/test_gateway_protocol.py"


def installed(release: str, folder: Path) -> str:
    """The version of uvicorn now in `folder`. Skips the test if pip cannot get it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(folder), release], capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"DID NOT RUN: {release} could not be installed, so nothing is known about it")
    [info] = folder.glob("uvicorn-*.dist-info")
    return info.name.removeprefix("uvicorn-").removesuffix(".dist-info")


@pytest.mark.parametrize("release", ["uvicorn", "uvicorn==0.34.0"], ids=["newest", "oldest"])
def test_protocol_suite_passes_on_another_uvicorn(tmp_path: Path, release: str) -> None:
    found = installed(release, tmp_path)
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", SUITE]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    used = "import uvicorn; print(uvicorn.__version__)"
    asked = subprocess.run([sys.executable, "-c", used], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert asked.stdout.strip() == found
    done = subprocess.run(suite, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"uvicorn {found}, pinned is {version('uvicorn')}\n{done.stdout[-5_000:]}"
