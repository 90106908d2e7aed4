"""Threads that the job starts compute as the operator does that started them."""

from collections.abc import Iterator

import numpy as np
import pytest

from schemas.threads import in_background
from udfs.operators.interpreter import prepare


@pytest.fixture(autouse=True)
def errors_as_before() -> Iterator[None]:
    with np.errstate(all="warn"):
        yield


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_operator_and_its_threads_ignore_floating_point_errors() -> None:
    prepare()
    found = [np.array([1e39], np.float32)]
    in_background("test", lambda: found.append(np.ones(1) / np.zeros(1))).join()
    assert [array.tolist() for array in found] == [[np.inf], [np.inf]]
