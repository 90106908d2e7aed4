"""Runs a model: the only module that imports onnxruntime.

Each Python worker creates one :class:`Scorer` when the operator opens. The job does not share it between threads,
although ``score`` keeps no state and is thread-safe.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.contract import PROFILE
from models.manifest import AGAIN, MODEL_FILE, Manifest, Tensor, describe, load_with_items
from models.ranking import Rows, Scores, best_of
from models.run_limit import RunLimit
from models.trial import find_fault
from schemas.errors import ModelError, ModelTooSlow
from schemas.threads import in_background


def _load_runtime() -> None:
    """Load onnxruntime in a thread of its own, before it is imported.

    It is made with pybind11: while it is loaded, it asks Python for the state of its thread, and in the thread of
    chained operators waits for a lock that this thread holds, for ever (:mod:`udfs.operators.interpreter`). In a new
    thread there is only one state. If it cannot be imported, the second import says so.
    """
    with contextlib.suppress(ImportError):
        import onnxruntime  # noqa: F401


in_background("freshet-onnxruntime", _load_runtime).join()
import onnxruntime as ort  # noqa: E402

WARM_UP_USERS: Final = (1, 8, 64)
CHUNK_USERS: Final = 32
"""Users scored in one run of the graph; larger batches are split, so that their scores fit into the CPU's cache
(L2)."""

_DTYPES: Final = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(int64)": "int64"}

History = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]
Features = Mapping[str, npt.NDArray[Any]]
_NO_FEATURES: Final[Features] = {}


class Scorer:
    """A loaded, checked and warmed-up model.

    ``manifest``: its description. ``items``: row → item id, row 0 is padding and ``""``. ``index``: item id → row, from
    1. ``wanted``: the inputs beside ``items`` and ``weights`` that the graph takes (:data:`models.contract.PROFILE`).
    """

    def __init__(self, manifest: Manifest, items: list[str], session: Any) -> None:
        self.manifest = manifest
        self.items = ["", *items]
        self.index = {item: row for row, item in enumerate(items, start=1)}
        self._session = session
        self._limited = RunLimit(ort.RunOptions)
        self.wanted = tuple(name for name in PROFILE if name in manifest.inputs)
        self._weighted = "weights" in manifest.inputs
        self._ranked = "ids" in manifest.outputs

    @classmethod
    def open(cls, directory: Path, *, threads: int = 1) -> "Scorer":
        """Load the model in ``directory``; raises :class:`ModelError` if it does not match its manifest."""
        manifest, items = load_with_items(directory)
        path = directory / MODEL_FILE
        session = open_session(str(path), str(path), threads)
        _check_graph(path, manifest, session)
        scorer = cls(manifest, items, session)
        scorer._warm_up(path)
        return scorer

    def score(
        self, items: History, weights: Weights | None = None, features: Features = _NO_FEATURES
    ) -> tuple[Scores, Rows]:
        """Rank the vocabulary for each user.

        ``items`` int32[users, recent_items_max]: rows of the recent items, newest last, 0 is padding. ``weights``
        float32 of the same shape: the weight of each item, by default 1; only used if the graph takes it.
        ``features``: the inputs in ``wanted``, each [users, width]. Returns ``(scores float32[users, top_k], rows
        int64[users, top_k])``, best first, never padding. A user's result does not depend on the other users of the
        batch.

        Raises :class:`ModelError` for another shape or a row outside the vocabulary, and :class:`ModelTooSlow` if a run
        was stopped (:data:`models.run_limit.RUN_MAX_S`).
        """
        history = self._checked(items)
        if weights is not None and weights.shape != history.shape:
            raise ModelError(
                f"weights are {list(weights.shape)}, the items are {list(history.shape)}: give one for each"
            )
        feed: dict[str, npt.NDArray[Any]] = {"items": history}
        if self._weighted:
            given = np.ones(history.shape, np.float32) if weights is None else weights
            feed["weights"] = np.ascontiguousarray(given, dtype=np.float32)
        feed |= {name: self._feature(name, features, len(history)) for name in self.wanted}
        cuts = range(0, max(len(history), 1), CHUNK_USERS)
        parts = [self._run({name: one[at : at + CHUNK_USERS] for name, one in feed.items()}) for at in cuts]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([scores for scores, _ in parts]), np.concatenate([rows for _, rows in parts])

    def _checked(self, items: History) -> History:
        width = self.manifest.recent_items_max
        if items.ndim != 2 or items.shape[1] != width:
            raise ModelError(f"items are {list(items.shape)}, model {self.manifest.name} takes int32[users, {width}]")
        history = np.ascontiguousarray(items, dtype=np.int32)
        if history.size and (history.min() < 0 or history.max() >= len(self.items)):
            raise ModelError(
                f"a row is outside 0..{len(self.items) - 1}, the vocabulary of model {self.manifest.name}: "
                "map item ids with this scorer's own `index`"
            )
        return history

    def _feature(self, name: str, features: Features, users: int) -> npt.NDArray[Any]:
        tensor, found = self.manifest.inputs[name], features.get(name)
        if found is None or found.shape != (users, tensor.shape[1]):
            shape = "nothing" if found is None else list(found.shape)
            raise ModelError(f"model {self.manifest.name} takes {name}: {describe(tensor)}, and got {shape}")
        return np.ascontiguousarray(found, dtype=tensor.dtype)

    def _run(self, feed: Mapping[str, npt.NDArray[Any]]) -> tuple[Scores, Rows]:
        if not len(feed["items"]):
            return np.empty((0, self.manifest.top_k), np.float32), np.empty((0, self.manifest.top_k), np.int64)
        if not self._ranked:
            only_scores = self._limited(lambda options: self._session.run(["scores"], feed, options))
            return best_of(only_scores[0], self.manifest.top_k)
        scores, rows = self._limited(lambda options: self._session.run(["scores", "ids"], feed, options))
        return scores, rows.astype(np.int64, copy=False)

    def _try(self, history: History, weights: Weights | None = None) -> tuple[Scores, Rows]:
        """Score a made-up history; of users with items, each feature is 1, of the others 0."""
        some = history.any(axis=1)[:, None]
        shapes = {name: (len(history), int(self.manifest.inputs[name].shape[1])) for name in self.wanted}
        features = {name: np.broadcast_to(some, shape).astype(np.float32) for name, shape in shapes.items()}
        return self.score(history, weights, features)

    def _warm_up(self, path: Path) -> None:
        """Run each batch size, then histories like those that shops send (:mod:`models.trial`)."""
        width, items = self.manifest.recent_items_max, len(self.items) - 1
        try:
            for users in WARM_UP_USERS:
                self._try(np.ones((users, width), np.int32))
            fault = find_fault(self._try, items, width, self.manifest.top_k)
        except Exception as error:  # as in open_session
            raise ModelError(f"{path} cannot be run: {error}") from error
        if fault is not None:
            raise ModelError(f"{path} cannot be used: {fault}")


def open_session(graph: str | bytes, name: str, threads: int = 1) -> Any:
    """A session of onnxruntime for a graph, given as a path or as bytes, that errors call `name`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Nothing: errors are raised, and their text may have values of users, which onnxruntime would print as well.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each status has its own class in onnxruntime, derived directly from Exception
        raise ModelError(f"{name} is not a graph that onnxruntime {ort.__version__} can run: {error}") from error


def run_once(graph: bytes, feed: Features) -> list[npt.NDArray[Any]]:
    """All outputs of a graph for one input; raises :class:`ModelError` if it cannot be run, or not in time."""
    session = open_session(graph, "the file")
    try:
        found: list[npt.NDArray[Any]] = RunLimit(ort.RunOptions)(lambda options: session.run(None, feed, options))
    except ModelTooSlow:
        raise
    except Exception as error:  # as in open_session
        raise ModelError(f"the graph fails for a full history: {error}") from error
    return found


def _check_graph(path: Path, manifest: Manifest, session: Any) -> None:
    """Check that names, types and shapes in the graph match the manifest; a free dimension may have any name."""
    for side, declared, found in (
        ("input", manifest.inputs, session.get_inputs()),
        ("output", manifest.outputs, session.get_outputs()),
    ):
        actual = {value.name: _tensor(value) for value in found}
        if set(actual) != set(declared):
            raise ModelError(
                f"{path} has the {side}s {', '.join(sorted(actual))}; "
                f"the manifest says {', '.join(sorted(declared))}: {AGAIN}"
            )
        for name, tensor in declared.items():
            if not _agree(tensor, actual[name]):
                raise ModelError(
                    f"{path}: {side} {name!r} is {describe(actual[name])}, "
                    f"the manifest says {describe(tensor)}: {AGAIN}"
                )


def _tensor(value: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) else str(size or "?") for size in value.shape)
    return Tensor(_DTYPES.get(value.type, value.type), shape)


def _agree(declared: Tensor, actual: Tensor) -> bool:
    """A free dimension of the graph may be fixed in the manifest (warm-up tests it), but not vice versa."""
    if declared.dtype != actual.dtype or len(declared.shape) != len(actual.shape):
        return False
    return all(isinstance(have, str) or have == want for want, have in zip(declared.shape, actual.shape, strict=True))
