"""The short forms of long tests: in `make test`, properties have few random examples, and campaigns few cases."""

import os
from collections.abc import Sequence
from typing import TypeVar

FEW = 25
IN_FULL = "FRESHET_HISTORIES" in os.environ
"""Set by `make properties` and `make privacy-test`."""
CAMPAIGN = "FRESHET_CAMPAIGN" in os.environ
"""Set by `make campaign`."""
Case = TypeVar("Case")


def examples(in_full: int) -> int:
    """`in_full`, or in the short form a quarter of it, but at least `FEW`."""
    return in_full if IN_FULL else min(in_full, max(FEW, in_full // 4))


def cases(all_of_them: Sequence[Case]) -> Sequence[Case]:
    """All cases in a campaign, and the first in the short form."""
    return all_of_them if CAMPAIGN else all_of_them[:1]
