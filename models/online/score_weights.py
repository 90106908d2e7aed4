"""The weights of the score, learned online: AdaGrad on a listwise softmax (Duchi, Hazan, Singer, JMLR 2011; Cao et al.,
"Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007).

A list's score of a candidate is ``(shared + own of the history's length) · features``. The loss of a list is the
cross-entropy between the softmax of its scores and what followed, each item that followed having an equal share.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from models.online.dimensions import CONTEXTS, FEATURES, LENGTHS

RATE: Final = 0.6
LISTS_PER_STEP: Final = 32
"""A step of more lists than this counts as one of so many: AdaGrad's step grows with the root of their number."""
SHARED: Final = CONTEXTS

Sums = npt.NDArray[np.float64]


def context_of(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which weights histories of these ``sizes`` int64[n] have beside the shared ones."""
    return np.searchsorted(np.array(LENGTHS), sizes, side="left")


@dataclass
class Gradients:
    """Sums over ``lists`` lists: of gradients, and of their squares, float64[contexts + 1, features], shared last."""

    lists: int = 0
    sums: Sums = field(default_factory=lambda: np.zeros((CONTEXTS + 1, FEATURES)))
    squares: Sums = field(default_factory=lambda: np.zeros((CONTEXTS + 1, FEATURES)))

    def add(self, other: "Gradients") -> None:
        """Add the sums of ``other``."""
        self.lists += other.lists
        self.sums += other.sums
        self.squares += other.squares


def gradients_of(
    scores: npt.NDArray[np.float32],
    features: npt.NDArray[np.float32],
    followed: npt.NDArray[np.bool_],
    contexts: npt.NDArray[np.int64],
) -> Gradients:
    """From ``scores`` [n, candidates], ``features`` [n, 24, candidates], which candidates ``followed`` and contexts.

    Lists with none of what followed among their candidates teach nothing.
    """
    use = followed.any(axis=1)
    if not use.any():
        return Gradients()
    scores, features, followed, contexts = scores[use], features[use], followed[use], contexts[use]
    ranked = np.isfinite(scores)
    exact = np.where(ranked, scores, -np.inf).astype(np.float64)
    chances = np.exp(exact - exact.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    missing = followed / followed.sum(axis=1, keepdims=True) - chances
    gradients = np.einsum("nfc,nc->nf", np.where(ranked[:, None, :], features, 0.0), missing)
    found = Gradients(len(gradients))
    np.add.at(found.sums, contexts, gradients)
    np.add.at(found.squares, contexts, gradients**2)
    found.sums[SHARED], found.squares[SHARED] = gradients.sum(axis=0), (gradients**2).sum(axis=0)
    return found


class ScoreWeights:
    """``weights`` and ``squares`` float64[contexts + 1, features], shared last. Begins with the order of candidates."""

    def __init__(self) -> None:
        self.weights = np.zeros((CONTEXTS + 1, FEATURES))
        self.weights[SHARED, 0] = 5.0
        self.squares = np.full((CONTEXTS + 1, FEATURES), 1e-2)

    def step(self, gradients: Gradients) -> None:
        """Take one step. Gradients that are no numbers are left out: weights would never recover from them."""
        exact = np.isfinite(gradients.sums).all() and np.isfinite(gradients.squares).all()
        if gradients.lists <= 0 or not exact or (gradients.squares < 0).any():
            return
        share = min(1.0, LISTS_PER_STEP / gradients.lists)
        self.squares += gradients.squares * share
        self.weights += RATE * share * gradients.sums / np.sqrt(self.squares)


def weights_of(weights: npt.NDArray[np.float64], contexts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The weights that lists of these ``contexts`` int64[n] are scored with: float32[n, features]."""
    found: npt.NDArray[np.float32] = (weights[SHARED] + weights[contexts]).astype(np.float32)
    return found
