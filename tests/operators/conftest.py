"""Fixtures for all operator tests."""

from collections.abc import Iterator

import pytest

import udfs.operators.patience
from tests.support.bucket import Bucket


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retries do not wait here."""
    monkeypatch.setattr(udfs.operators.patience, "nap", lambda _: None)
    yield


@pytest.fixture
def bucket() -> Bucket:
    """A bucket in which nothing has happened yet."""
    return Bucket()
