"""Which of two models is better, from pairs of gains: by betting."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.model_shadow import GainPairs, Kind, simulate
from models.paired_gains import (
    FRACTIONS,
    LEVELS,
    Counts,
    decode_pairs,
    encode_pairs,
    gain_of,
    interval,
    is_better,
    is_worse,
    mean_gains,
    no_pairs,
)
from schemas.errors import SchemaError

ERROR = 0.01


def pairs_of(served: list[int], other: list[int]) -> Counts:
    counts = no_pairs()
    np.add.at(counts, (np.array(served, int), np.array(other, int)), 1)
    return counts


def drawn(lists: int, loss: float, seed: int = 1) -> Counts:
    """A third of the served lists gain; the other model loses the share `loss` of them."""
    random = np.random.default_rng(seed)
    served = np.where(random.random(lists) < 0.3, random.integers(8, LEVELS + 1, lists), 0)
    return pairs_of(served.tolist(), np.where(random.random(lists) < loss, 0, served).tolist())


@given(st.lists(st.tuples(st.integers(0, LEVELS), st.integers(0, LEVELS)), max_size=60), st.floats(0, 0.2))
def test_the_verdict_equals_that_of_a_gambler_who_takes_one_list_after_the_other(
    pairs: list[tuple[int, int]], tolerance: float
) -> None:
    capitals = [1.0] * len(FRACTIONS)
    for served, other in pairs:
        loss = (1 - tolerance) * served / LEVELS - other / LEVELS
        capitals = [capital * (1 + fraction * loss) for capital, fraction in zip(capitals, FRACTIONS, strict=True)]
    wealth = sum(capitals) / len(capitals)
    counts = pairs_of([served for served, _ in pairs], [other for _, other in pairs])
    for error in (0.001, 0.05, 0.5):
        if not math.isclose(wealth, 1 / error, rel_tol=1e-6):
            assert is_worse(counts, tolerance, error) == (wealth > 1 / error)


def test_a_worse_model_is_found_and_a_better_one_is_not() -> None:
    counts = drawn(5_000, loss=0.1)
    assert is_worse(counts, 0.02, ERROR)
    assert not is_better(counts, ERROR)
    assert is_better(counts.T, ERROR)
    assert not is_worse(counts.T, 0.02, ERROR)


def test_a_loss_within_the_tolerance_is_no_reason() -> None:
    counts = drawn(40_000, loss=0.04)
    assert is_worse(counts, 0.02, ERROR)
    assert not is_worse(counts, 0.05, ERROR)


def test_without_lists_nothing_is_known() -> None:
    assert not is_worse(no_pairs(), 0.0, ERROR)
    assert interval(no_pairs(), ERROR) == (0.0, -1.0, 1.0)


def test_the_interval_narrows_around_the_mean() -> None:
    few, many = interval(drawn(500, 0.1), ERROR), interval(drawn(20_000, 0.1), ERROR)
    assert many.high - many.low < (few.high - few.low) / 3
    served, other = mean_gains(drawn(20_000, 0.1))
    assert many.low < many.mean < many.high < 0
    assert many.mean == pytest.approx(other - served)


def test_equal_models_raise_no_more_alarms_than_allowed_however_often_one_looks() -> None:
    random = np.random.default_rng(3)
    gains = np.where(random.random(4_000) < 0.3, random.integers(8, LEVELS + 1, 4_000), 0)
    runs = simulate("equal", Kind.EQUAL, GainPairs(gains, random.permutation(gains)), seed=5)
    assert runs.worse <= 1
    worse = simulate("worse", Kind.WORSE, GainPairs(gains, np.where(random.random(4_000) < 0.1, 0, gains)), seed=5)
    assert worse.worse >= 95


@given(st.dictionaries(st.integers(0, (LEVELS + 1) ** 2 - 1), st.integers(1, 2**40)))
def test_counts_survive_their_bytes(pairs: dict[int, int]) -> None:
    counts = no_pairs()
    counts.ravel()[list(pairs)] = list(pairs.values())
    assert (decode_pairs(encode_pairs(counts)) == counts).all()


def test_golden_bytes() -> None:
    assert encode_pairs(pairs_of([0, 32, 32], [0, 16, 16])).hex() == "93019200cd0430920102"


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", b"\x93\x02\x90\x90", b"\x93\x01\x91\xff\x91\x01", b"\x93\x01\x91\x01\x90"]
)
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(SchemaError):
        decode_pairs(raw)


def test_a_gain_is_ndcg() -> None:
    ranked = list("abcdefghijk")
    assert gain_of(ranked, set()) == 0
    assert gain_of(ranked, {"k"}) == 0, "only the first ten count"
    assert gain_of(ranked, set("abcdefghij")) == LEVELS
    assert gain_of(ranked, {"j"}) == round(LEVELS / math.log2(11))
