"""A model of random numbers with the graph of the real one: for benchmarks and tests, never for serving."""

from pathlib import Path
from typing import Final

import numpy as np

from models.graph import Transitions
from models.manifest import POPULAR_MAX, Manifest, TrainingWindow
from models.model_directory import Card, export
from models.transitions import lag_weights

TRAINED_AT_MS: Final = 1_735_689_600_000
"""2025-01-01, a date for the names of these untrained models."""
LAG_DECAY: Final = 0.95
POPULARITY_WEIGHT: Final = 0.05


def random_transitions(items: int, neighbours: int, seed: int) -> Transitions:
    """Items on a ring in random order, each followed by others near it; popularity falls with the row (Zipf)."""
    random = np.random.default_rng(seed)
    reach = min(4 * neighbours, items - 1)
    steps = min(neighbours, reach)
    ring = random.permutation(items)
    place = np.argsort(ring)
    offsets = random.random((items, reach)).argsort(axis=1)[:, :steps] + 1
    following = np.zeros((items + 1, neighbours), np.int32)
    following[1:, :steps] = ring[(place[:, None] + offsets) % items] + 1
    values = np.zeros((items + 1, neighbours), np.float32)
    values[1:, :steps] = random.exponential(size=(items, steps))
    bias = np.concatenate([[-np.inf], -POPULARITY_WEIGHT * np.log(np.arange(1, items + 1))]).astype(np.float32)
    return Transitions(following, values, bias, lag_weights(LAG_DECAY))


def random_model(
    directory: Path, items: int = 10_000, neighbours: int = 64, top_k: int = 50, seed: int = 0, *, int8: bool = True
) -> Manifest:
    """Export a random model with the ids ``item-00001``… to ``directory``; the same arguments give the same bytes."""
    ids = [f"item-{row:05d}" for row in range(1, items + 1)]
    window = TrainingWindow(TRAINED_AT_MS, TRAINED_AT_MS, 0, 0, items)
    card = Card("random", window, popular=ids[:POPULAR_MAX])
    return export(directory, random_transitions(items, neighbours, seed), ids, top_k, card, int8=int8)
