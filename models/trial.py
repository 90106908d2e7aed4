"""Tries a model on realistic histories before it is adopted.

Most graphs can score a full history. Many divide by the length of the history, or take a softmax over it, and return
0/0 for a new user, or for one who only used items that the model does not know: the scorer sees only padding.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Histories = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]
Answer = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

BATCH_USERS: Final = 64
MIXED_MAX: Final = 0.2
"""What a score may differ by alone and in a batch, as a share of the largest. Dynamic quantisation (INT8) takes its
ranges from the batch, so its scores differ a little."""


def find_fault(score: Callable[[Histories, Weights], Answer], items: int, width: int, top_k: int) -> str | None:
    """Describe what is wrong with the output of `score`, and for which history; None if nothing is.

    `score` takes rows int32[users, width], where 0 is padding, and weights float32 of the same shape. It must return
    scores float32[users, top_k], finite, and rows int[users, top_k] from 1 to `items`, the same each time, and scores
    alone like those in a batch. Raises what `score` raises.
    """
    alone: dict[bytes, npt.NDArray[np.float32]] = {}
    for name, histories in trials(items, width):
        weights = _weights(histories)
        scores, rows = score(histories, weights)
        again = score(histories, weights)
        fault = _fault(scores, rows, (len(histories), top_k), items)
        if fault is None and not (np.array_equal(scores, again[0]) and np.array_equal(rows, again[1])):
            fault = "differs from call to call: leave random operators (dropout, sampling) out of the graph"
        if fault is None and len(histories) > 1:
            fault = _mixed(histories, scores, alone)
        if fault is not None:
            return f"what it returned for {name} {fault}"
        if len(histories) == 1:
            alone[histories.tobytes()] = scores[0]
    return None


def _mixed(
    histories: Histories, scores: npt.NDArray[np.float32], alone: dict[bytes, npt.NDArray[np.float32]]
) -> str | None:
    """What is wrong if a history has other scores within a batch than `alone`, by its bytes."""
    for history, within in zip(histories, scores, strict=True):
        before = alone[history.tobytes()]
        difference = float(np.abs(within - before).max())
        if difference > MIXED_MAX * max(float(np.abs(before).max()), float(np.abs(within).max())):
            return (
                "differs from what it returns for the same history alone: an operator works across users, such as a "
                "softmax or a mean over the first axis; have it work within each row"
            )
    return None


def trials(items: int, width: int) -> Iterator[tuple[str, Histories]]:
    """(name, rows int32[users, width]) of each kind of history, then of all kinds in a batch, of 1 and 64 users."""
    full = (np.arange(width) % items + 1).astype(np.int32)
    empty = np.zeros(width, np.int32)
    one, part, last = empty.copy(), full.copy(), full.copy()
    one[-1] = 1
    part[: width // 2] = 0
    last[:] = items
    kinds = {
        "an empty history, which is also one of unknown items only": empty,
        "a history of one item": one,
        "a history that is partly padding": part,
        "a full history": full,
        "the last item again and again": last,
    }
    for name, history in kinds.items():
        yield name, history[None]
    # Chosen so that each kind is next to each other kind.
    places = np.arange(BATCH_USERS) ** 2 % len(kinds)
    yield f"a batch of {BATCH_USERS} mixed histories", np.stack(list(kinds.values()))[places]
    yield f"a batch of {BATCH_USERS} empty histories", np.zeros((BATCH_USERS, width), np.int32)


def _weights(histories: Histories) -> Weights:
    """Like the job's weights: 0 for padding, decreasing with age."""
    fading = np.exp2(np.arange(histories.shape[1]) - histories.shape[1] + 1.0)
    return np.where(histories > 0, fading, 0.0).astype(np.float32)


def _fault(
    scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], shape: tuple[int, int], items: int
) -> str | None:
    if scores.shape != shape or rows.shape != shape:
        return f"is {list(scores.shape)}, not {list(shape)}"
    if not np.isfinite(scores).all():
        return (
            "holds a score that is not finite: guard divisions by the length of the history, and softmax over a "
            "history that is all padding (0/0); row 0 (padding) may be among the rows"
        )
    if rows.min() < 1 or rows.max() > items:
        return f"holds a row outside 1..{items}: give row 0, the padding, a score of -inf"
    ordered = np.sort(rows, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return "names a row twice"
    return None
