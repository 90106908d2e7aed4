"""The examples in the demo's docstrings run."""

import doctest
import importlib

import pytest

MODULES = ("names", "shop", "replay", "table", "text", "watch")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"deploy.demo.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
