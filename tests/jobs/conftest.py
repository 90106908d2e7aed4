"""Flink's mini cluster runs in a Java machine of these tests."""

import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def no_files_in_tmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What it and PyFlink leave behind goes where the other files of tests go."""
    directory = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JVM_ARGS", f"-Djava.io.tmpdir={directory}")
        patch.setattr(tempfile, "tempdir", directory)
        yield
