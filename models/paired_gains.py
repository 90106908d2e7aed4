"""Which of two models makes the better lists, decided while lists arrive: a test by betting, and a confidence sequence.

The gain of a list is its nDCG@10 for what the user met next. For each list of a shadow, two models have a gain, made
from the same history. Gains are rounded to `LEVELS` steps, so how often each pair of gains occurred is all that a
decision needs: pairs of all buckets and seconds can be added up in any order.

A bet against a mean m of the differences has the capital Π(1 + λ (difference − m)). If no expected difference, given
all lists before it, exceeds m (bets on more) or falls below m (bets on less), the capital is a supermartingale. So it
ever reaches 1 / error with a probability of at most `error` (Ville's inequality), however often one looks. Capital is
spread over several fixed λ (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS-B
86(1), 2024, there: diversified Kelly bets). The means that no capital has refuted are the confidence sequence.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.errors import SchemaError

LISTED: Final = 10
LEVELS: Final = 32
"""Gains are rounded to so many steps between 0 and 1."""
FRACTIONS: Final = np.geomspace(0.02, 0.96, 8)
"""The shares of its capital that each bet puts at risk, at most."""
_PRECISION: Final = 1e-5
_DISCOUNTS: Final = (1 / np.log2(np.arange(2, LISTED + 2))).tolist()
_IDEAL: Final = np.cumsum(_DISCOUNTS).tolist()
_GAINS: Final = np.arange(LEVELS + 1) / LEVELS

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
"""int64[33, 33]: how many served lists had the first gain, in steps, where the other list had the second."""


def gain_of(ranked: Sequence[Any], met: Collection[Any]) -> int:
    """The gain of a list, best first, for the items that the user `met` next, in steps.

    >>> gain_of(["tea", "cup"], {"tea"}), gain_of(["cup", "tea"], {"tea"}), gain_of(["cup"], {"tea"})
    (32, 20, 0)
    """
    found = sum(discount for item, discount in zip(ranked, _DISCOUNTS, strict=False) if item in met)
    return round(LEVELS * found / _IDEAL[min(len(met), LISTED) - 1]) if met else 0


def no_pairs() -> Counts:
    """Counts before the first list."""
    return np.zeros((LEVELS + 1, LEVELS + 1), np.int64)


class Interval(NamedTuple):
    """The mean difference between gains, other − served, and the ends of its interval."""

    mean: float
    low: float
    high: float


def mean_gains(counts: Counts) -> tuple[float, float]:
    """The mean gain of the served lists and of the others.

    >>> counts = no_pairs()
    >>> counts[LEVELS, LEVELS // 2] = counts[0, 0] = 1
    >>> mean_gains(counts)
    (0.5, 0.25)
    """
    lists = max(1, int(counts.sum()))
    return float(counts.sum(axis=1) @ _GAINS / lists), float(counts.sum(axis=0) @ _GAINS / lists)


def differences(tolerance: float = 0.0) -> Floats:
    """By pair of gains: the other list's − (1 − `tolerance`) × the served one's, within −1 and 1."""
    return _GAINS[None, :] - (1 - tolerance) * _GAINS[:, None]


def growth(values: Floats, mean: float, sign: int) -> Floats:
    """The logarithm by which a list multiplies the capital of each bet: float64[*values.shape, bets].

    Bets on more than `mean` have `sign` 1, on less −1. `values` are within −1 and 1.
    """
    steps = sign * (values - mean) / (1 + sign * mean)
    return np.log1p(steps[..., None] * FRACTIONS)


def capital(grown: Floats) -> Any:
    """The logarithm of the capital of all bets together, each having started with an equal part: float64[...]."""
    most = grown.max(axis=-1)
    return most + np.log(np.exp(grown - most[..., None]).mean(axis=-1))


def is_worse(counts: Counts, tolerance: float, error: float) -> bool:
    """Whether it is certain that the other model's lists are worse by more than the share `tolerance` of the gain.

    If they are at no time worse than that, this is ever True with a probability of at most `error`.
    """
    return _refutes(counts, differences(tolerance), 0.0, -1, error)


def is_better(counts: Counts, error: float) -> bool:
    """Whether it is certain, in the same sense, that the other model's lists are better."""
    return _refutes(counts, differences(), 0.0, 1, error)


def interval(counts: Counts, error: float) -> Interval:
    """The mean difference, and the confidence sequence at this moment; each end is wrong with `error` at most."""
    served, other = mean_gains(counts)
    mean = other - served
    return Interval(mean, -_end(counts.T, -mean, error), _end(counts, mean, error))


def _end(counts: Counts, mean: float, error: float) -> float:
    """The smallest mean above `mean` that is refuted as too high; 1 if there is none.

    The capital of bets on less grows with the mean, so it can be searched by halving.
    """
    low, high, values = mean, 1.0, differences()
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if _refutes(counts, values, middle, -1, error):
            high = middle
        else:
            low = middle
    return high


def _refutes(counts: Counts, values: Floats, mean: float, sign: int, error: float) -> bool:
    pairs = np.flatnonzero(counts)
    grown = counts.ravel()[pairs] @ growth(values.ravel()[pairs], mean, sign)
    return bool(capital(grown) >= -np.log(error))


class StoredPairs(msgspec.Struct, array_like=True, frozen=True):
    """The bytes of counts: their places in the table, flattened, and the counts there."""

    version: int
    places: list[int]
    counts: list[int]


_VERSION: Final = 1
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(StoredPairs)


def encode_pairs(counts: Counts) -> bytes:
    """Bytes for state, and between operators."""
    places = np.flatnonzero(counts)
    return _encoder.encode(StoredPairs(_VERSION, places.tolist(), counts.ravel()[places].tolist()))


def decode_pairs(raw: bytes) -> Counts:
    """The counts behind `raw`. Raises :class:`SchemaError` if these are none."""
    try:
        stored = _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SchemaError(f"these are no pairs of gains: {error}") from None
    counts = no_pairs()
    in_bounds = all(0 <= place < counts.size for place in stored.places) and all(0 < n < 1 << 53 for n in stored.counts)
    if stored.version != _VERSION or len(stored.places) != len(stored.counts) or not in_bounds:
        raise SchemaError("these pairs of gains are of another release, or broken")
    counts.ravel()[stored.places] = stored.counts
    return counts
