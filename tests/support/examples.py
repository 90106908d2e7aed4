"""How many random examples a property is tried on: few in `make test`, all of them in `make properties`."""

import os

FEW = 25
IN_FULL = "FRESHET_HISTORIES" in os.environ
"""Set by `make properties` and `make privacy-test`."""


def examples(in_full: int) -> int:
    """`in_full`, or in the short form a quarter of it, but at least `FEW`."""
    return in_full if IN_FULL else min(in_full, max(FEW, in_full // 4))
