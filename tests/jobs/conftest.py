"""Runs Flink's mini cluster in the JVM of these tests."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="package", autouse=True)
def no_files_in_tmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Puts the temporary files of Flink and PyFlink where the other files of tests go."""
    directory = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JVM_ARGS", f"-Djava.io.tmpdir={directory}")
        patch.setattr(tempfile, "tempdir", directory)
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_of_workers_stays() -> Iterator[None]:
    """An in-process worker of PyFlink takes over Flink's environment and folder; later processes would inherit them."""
    environment, path, folder = dict(os.environ), sys.path[:], Path.cwd()
    yield
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    os.chdir(folder)
