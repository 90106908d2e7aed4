"""What all tests of operators share."""

from collections.abc import Iterator

import pytest

import udfs.store
from tests.support.bucket import Bucket


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retries do not wait here."""
    waits = udfs.store.patiently.__defaults__
    monkeypatch.setattr(udfs.store.patiently, "__defaults__", (lambda _: None,))
    yield
    assert waits is not None


@pytest.fixture
def bucket() -> Bucket:
    """A bucket in which nothing has happened yet."""
    return Bucket()
