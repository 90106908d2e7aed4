"""Assertions in the support modules explain themselves like those in tests."""

import logging

import pytest

pytest.register_assert_rewrite(
    "tests.support.live", "tests.support.retail", "tests.support.naive", "tests.support.raw_ids"
)
logging.getLogger("kafka").setLevel(logging.ERROR)
