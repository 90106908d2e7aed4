"""Assertions in the support modules explain themselves like those in tests; no property fails for being slow."""

import logging

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite(
    "tests.support.live", "tests.support.retail", "tests.support.naive", "tests.support.raw_ids"
)
logging.getLogger("kafka").setLevel(logging.ERROR)
# Whether an example meets Hypothesis' deadline of 200 ms depends on the machine's load.
settings.register_profile("freshet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("freshet")
