"""Paths as Flink and Kafka read them, checked with Java itself."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pyflink.java_gateway import get_gateway

from deploy.local.errors import StackError
from deploy.local.escaping import check_directory, properties_of
from jobs.locations import location_of, path_of

NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=["C"]), min_size=1, max_size=20)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: Path("/", *names))


@pytest.fixture(scope="module")
def java() -> Any:
    return get_gateway().jvm


@given(path=PATHS)
@example(path=Path("/my shop (1)/100%2F 50%/josé/a?b#c"))
def test_flink_uses_the_given_folder(java: Any, path: Path) -> None:
    assume(is_allowed(path))
    found = java.org.apache.flink.core.fs.Path(location_of(path))
    assert java.java.io.File(found.getPath()).getPath() == str(path)


@given(path=PATHS)
@example(path=Path("/my shop (1)/100%2F 50%/josé/a?b#c"))
def test_location_reported_by_flink_is_the_folder(java: Any, path: Path) -> None:
    assume(is_allowed(path))
    told = java.org.apache.flink.core.fs.Path(location_of(path)).toString()
    assert path_of(told) == path


@given(value=st.text(st.characters(exclude_categories=["Cs"])))
@example(value=" josé\\n\\u0041 = # ! \n")
def test_java_reads_written_properties(java: Any, value: str) -> None:
    properties = java.java.util.Properties()
    properties.load(java.java.io.ByteArrayInputStream(properties_of({"log.dirs": value})))
    assert properties.getProperty("log.dirs") == value


def is_allowed(path: Path) -> bool:
    try:
        check_directory(path)
    except StackError:
        return False
    return True
