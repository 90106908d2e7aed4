"""Measures the cost of scoring in microseconds per user, for each batch size (`freshet model cost`).

Measures the CPU time of this process on one thread, and takes the minimum of several repeats, so that other work on the
machine has little effect. The model is random but shaped like a trained one; FP32 and INT8 alternate within each
repeat.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from models.manifest import RECENT_ITEMS_MAX
from models.random_model import random_model
from models.scorer import Scorer

BATCHES: Final = (1, 8, 32, 64, 256)
REPEATS: Final = 20
USERS_PER_REPEAT: Final = 512


def microseconds_per_user(scorers: Mapping[str, Scorer], users: int, repeats: int) -> dict[str, float]:
    """CPU microseconds per user in batches of ``users``, for each scorer."""
    random = np.random.default_rng(0)
    shape = (users, RECENT_ITEMS_MAX)
    weights = np.ones(shape, np.float32)
    best = dict.fromkeys(scorers, float("inf"))
    for _ in range(repeats):
        for name, scorer in scorers.items():
            items = random.integers(1, len(scorer.items), shape, dtype=np.int32)
            runs = max(2, USERS_PER_REPEAT // users)
            begun = time.process_time()
            for _ in range(runs):
                scorer.score(items, weights)
            best[name] = min(best[name], (time.process_time() - begun) / runs / users * 1e6)
    return best


def costs(items: int, top_k: int, repeats: int) -> dict[int, dict[str, float]]:
    """CPU microseconds per user of a random model, by batch size, then by form (int8, fp32)."""
    with tempfile.TemporaryDirectory() as scratch:
        scorers = {}
        for name in ("int8", "fp32"):
            random_model(Path(scratch) / name, items, top_k=top_k, int8=name == "int8")
            scorers[name] = Scorer.open(Path(scratch) / name)
        return {users: microseconds_per_user(scorers, users, repeats) for users in BATCHES}
