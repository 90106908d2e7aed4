"""The ONNX graph of the online model. Tables and weights are its inputs, so that one session serves every update.

For one user, with ``items[j]`` the item at position ``j`` of the history (the newest last, 0 is padding):

1. Columns: the neighbours of each item of the history (of older items, the best half), the history itself, the user's
   own items further back, and the front (popular and new items).
2. Columns of one item become one: the last of them represents the others. What sources say of the item is added up
   there, a channel for each source::

       mix = .45 follows + .2 near + .2 next + .1 recent + .1 own + .05 popularity

   In the mix, the history counts by 0.8 ** lag; as features, ``near`` counts it evenly, and ``next`` its newest item
   only. ``own`` is by how often the user met each, and popularity is that of the front.
3. The best 128 by ``mix``, without what is excluded, are the candidates.
4. 24 features of each candidate, in the order of :data:`FEATURE_NAMES`.
5. ``scores = features · weights``, best first.

Work grows with the history, not with the catalogue, but for one row of numbers a user that finds equal items: it starts
from ``nobody``, zeros that the caller keeps. ``size`` is the length of the lists. Features are rows of candidates:
joining and multiplying rows is several times as fast as doing so with columns. Every step works within one user, so
that a user's scores are the same, bit for bit, alone and in any batch.
"""

from typing import Any, Final

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models.graph import IR_VERSION, OPSET, Graph
from models.online.dimensions import (
    CANDIDATES,
    CHANNELS,
    CLOSE,
    EPSILON,
    FAR_NEIGHBOURS,
    FEATURES,
    HISTORY,
    LAG_DECAY,
    MIX,
    NEIGHBOURS,
    OWN_ITEMS,
    POPULARITIES,
)

OWN_CHANNELS: Final = ("place", "inside", "own count")
"""What a column of the history, or of the user's own items, says of itself."""
FEATURE_NAMES: Final = (
    *("log mix", "log follows", "log near", "log next", "log cosine"),
    *("log popularity 6 h", "log popularity 1 d", "log popularity 7 d", "log popularity 60 d", "log age"),
    *("has follows", "has near", "has next"),
    *("1 / place in history", "in history", "own count", "in history / length", "newest of history"),
    *("mix²", "follows²", "near²", "popularity 1 d²", "follows × popularity 1 d", "near × popularity 1 d"),
)
LOG_EPSILON: Final = float(np.log(EPSILON))
PARTS: Final = (0, HISTORY - CLOSE, FAR_NEIGHBOURS), (HISTORY - CLOSE, HISTORY, NEIGHBOURS)
"""Positions of the history, from and to, and how many neighbours each item there has among the columns."""
WIDTH: Final = sum((end - begin) * neighbours for begin, end, neighbours in PARTS)
INT, FLOAT, LONG, HALF = TensorProto.INT32, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT16
SHORT: Final = TensorProto.INT16
"""Of the numbers of columns: copying a row of the catalogue is what depends on its size."""
INPUTS: Final[dict[str, tuple[int, tuple[Any, ...]]]] = {
    "items": (INT, ("users", HISTORY)),
    "excluded": (INT, ("users", "excluded_items")),
    "own": (INT, ("users", OWN_ITEMS)),
    "own_counts": (FLOAT, ("users", OWN_ITEMS)),
    "weights": (FLOAT, ("users", FEATURES)),
    "front": (INT, ("front_items",)),
    "front_share": (FLOAT, ("front_items",)),
    "popularity": (FLOAT, ("rows", POPULARITIES + 1)),
    "neighbours": (INT, ("rows", NEIGHBOURS)),
    "mixed": (HALF, ("rows", NEIGHBOURS)),
    "shares": (HALF, ("rows", NEIGHBOURS * len(CHANNELS))),
    "right_root": (FLOAT, ("rows",)),
    "nobody": (SHORT, ("users", "rows")),
    "size": (LONG, (1,)),
}
OUTPUTS: Final[dict[str, tuple[int, tuple[Any, ...]]]] = {
    "scores": (FLOAT, ("users", "size")),
    "ids": (INT, ("users", "size")),
    "candidates": (INT, ("users", CANDIDATES)),
    "features": (FLOAT, ("users", FEATURES, CANDIDATES)),
    "candidate_scores": (FLOAT, ("users", CANDIDATES)),
}


class BlendGraph(Graph):
    """Builds the graph, a method for each part; what parts share is in attributes, as names of values."""

    def __init__(self) -> None:
        super().__init__()
        self.axis_1, self.axis_2 = self.constant("axis_1", [1]), self.constant("axis_2", [2])
        self.one, self.none = self.constant("one", 1, np.float32), self.constant("none", 0, np.float32)
        self.tiny = self.constant("tiny", 1e-9, np.float32)
        self.lowest = self.constant("lowest", -np.inf, np.float32)
        self.users = self.op("Shape", "items", end=1)
        self._history()
        self._columns()
        self._representatives()
        self._sums()
        self._candidates()
        self._features()
        self._rank()

    def _zeros(self, dtype: Any, *sizes: str) -> str:
        shape = self.op("Concat", self.users, *sizes, axis=0)
        return self.op("ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, dtype)))

    def _history(self) -> None:
        """What each position counts in each channel: float32[users, HISTORY, 32 * 4]. `next` sees the newest only."""
        known = self.op("Cast", self.op("Cast", "items", to=TensorProto.BOOL), to=FLOAT)
        self.length = self.op("Max", self.op("ReduceSum", known, self.axis_1, keepdims=1), self.one)
        by_lag = self.op("Mul", known, self.constant("lags", LAG_DECAY ** np.arange(HISTORY - 1, -1, -1), np.float32))
        total = self.op("Max", self.op("ReduceSum", by_lag, self.axis_1, keepdims=1), self.tiny)
        self.even = self.op("Div", known, self.length)
        newest = self.op("Mul", known, self.constant("newest_only", np.arange(HISTORY) == HISTORY - 1, np.float32))
        self.follows = self.op("Div", by_lag, total)
        channels = [self.follows, self.even, newest, by_lag]
        self.position_weights = self.op("Concat", *(self.op("Unsqueeze", one, self.axis_2) for one in channels), axis=2)
        self.known = known

    def _neighbours(self, table: str, weights: str = "", channels: int = 1) -> str:
        """What `table` says of the neighbours of the history, times float32[users, HISTORY, channels]: [users, all]."""
        parts = []
        for begin, end, neighbours in PARTS:
            values = self.op("Gather", table, self._slice("items", begin, end, self.axis_1), axis=0)
            if neighbours < NEIGHBOURS:
                values = self._slice(values, 0, channels * neighbours, self.axis_2)
            if weights:
                by_position = self._slice(weights, begin, end, self.axis_1)
                if channels > 1:
                    # Multiplying arrays of one shape is several times as fast as repeating four numbers within one.
                    by_position = self.op("Tile", by_position, self.constant(f"tiles_{neighbours}", [1, 1, neighbours]))
                values = self.op("Mul", self.op("Cast", values, to=FLOAT), by_position)
            parts.append(self.op("Reshape", values, self.constant("per_user", [0, -1])))
        return self.op("Concat", *parts, axis=1)

    def _slice(self, values: str, begin: int, end: int, axis: str) -> str:
        limits = self.constant(f"from_{begin}", [begin]), self.constant(f"from_{end}", [end])
        return self.op("Slice", values, *limits, axis)

    def _columns(self) -> None:
        neighbours = self._neighbours("neighbours")
        front = self.op("Expand", "front", self.op("Concat", self.users, self.op("Shape", "front"), axis=0))
        self.columns = self.op("Concat", neighbours, "items", "own", front, axis=1)
        self.width = self.op("Shape", self.columns, start=1)

    def _representatives(self) -> None:
        """The number, from 1, of the last column of each column's item; one more than all for what is left out."""
        count = self.op("Squeeze", self.op("Cast", self.width, to=INT))
        first = self.constant("first", 1, np.int32)
        last = self.op("Add", count, first)
        self.numbers = self.op("Unsqueeze", self.op("Range", first, last, first), self.constant("axis_0", [0]))
        padding = self.op(
            "Expand", self.constant("padding_row", [[0]], np.int32), self.op("Concat", self.users, "axis_1", axis=0)
        )
        left_out = self.op("Concat", "excluded", padding, axis=1)
        rows = self.op("Concat", self.columns, left_out, axis=1)
        spread = self.op("Expand", self.numbers, self.op("Shape", self.columns))
        beyond = self.op("Expand", last, self.op("Shape", left_out))
        numbers = self.op("Cast", self.op("Concat", spread, beyond, axis=1), to=SHORT)
        found = self.op("ScatterElements", "nobody", rows, numbers, axis=1, reduction="max")
        self.representative = self.op("Cast", self.op("GatherElements", found, self.columns, axis=1), to=INT)

    def _sums(self) -> None:
        """Of each column that represents its item, what sources say: float32[users * (columns + 2), channels]."""
        self.stride = self.op("Add", self.width, self.constant("unnumbered", [2]))
        index = self.op("Range", "at_0", self.op("Squeeze", self.users), "at_1")
        self.constant("at_0", 0)
        self.constant("at_1", 1)
        self.offsets = self.op("Mul", self.op("Unsqueeze", index, self.axis_1), self.stride)
        places = self.op("Add", self.op("Cast", self.representative, to=LONG), self.offsets)
        of_neighbours = self._slice(places, 0, WIDTH, self.axis_1)
        of_own = self._slice(places, WIDTH, WIDTH + HISTORY + OWN_ITEMS, self.axis_1)
        said = self._neighbours("shares", self.position_weights, len(CHANNELS))
        self.channels = self._summed(of_neighbours, said, len(CHANNELS))
        self.own_channels = self._summed(of_own, self._own(), len(OWN_CHANNELS))

    def _summed(self, places: str, values: str, channels: int) -> str:
        flat = self.op("Reshape", values, self.constant(f"by_{channels}", [-1, channels]))
        total = self.op("Mul", self.users, self.stride)
        shape = self.op("Concat", total, self.constant(f"channels_{channels}", [channels]), axis=0)
        zeros = self.op("ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, np.float32)))
        return self.op(
            "ScatterND", zeros, self.op("Reshape", places, self.constant("one_place", [-1, 1])), flat, reduction="add"
        )

    def _own(self) -> str:
        """The channels of the history and of the user's own items: float32[users, columns, 3]."""
        place = 1 / (1 + np.arange(HISTORY - 1, -1, -1))
        by_place = self.op("Mul", self.known, self.constant("by_place", place, np.float32))
        no_history, no_own = (self.op("Mul", one, self.none) for one in (self.known, "own_counts"))
        channels = (by_place, no_own), (self.known, no_own), (no_history, "own_counts")
        rows = [self.op("Unsqueeze", self.op("Concat", *one, axis=1), self.axis_2) for one in channels]
        return self.op("Concat", *rows, axis=2)

    def _mix(self) -> str:
        """What each column adds to the mix of its item: float32[users, columns]."""
        shape = self.op("Concat", self.users, self.op("Shape", "front"), axis=0)
        total = self.op("Max", self.op("ReduceSum", "own_counts", self.axis_1, keepdims=1), self.tiny)
        return self.op(
            "Concat",
            self._neighbours("mixed", self.op("Unsqueeze", self.follows, self.axis_2)),
            self._scale(self.even, "recent"),
            self._scale(self.op("Div", "own_counts", total), "own"),
            self._scale(self.op("Expand", "front_share", shape), "popular"),
            axis=1,
        )

    def _scale(self, value: str, source: str) -> str:
        return self.op("Mul", value, self.constant(f"mix_{source}", MIX[source], np.float32))

    def _candidates(self) -> None:
        zeros = self._zeros(np.float32, self.stride)
        sums = self.op("ScatterElements", zeros, self.representative, self._mix(), axis=1, reduction="add")
        sums = self.op("Slice", sums, "axis_1", self.constant("before_last", [-1]), self.axis_1)
        ranked = self.op("Where", self.op("Equal", self.representative, self.numbers), sums, self.lowest)
        k = self.constant("candidates_max", [CANDIDATES])
        self.nodes.append(helper.make_node("TopK", [ranked, k], ["mix", "candidate_columns"], axis=-1, sorted=0))
        self.op("GatherElements", self.columns, "candidate_columns", out="candidates", axis=1)
        self.places = self.op("Add", self.op("Add", "candidate_columns", "at_1"), self.offsets)

    def _features(self) -> None:
        """In the order of FEATURE_NAMES, each a row of candidates: float32[users, features, candidates]."""
        said = self._rows(self.op("Gather", self.channels, self.places, axis=0))
        follows_near_next = self._slice(said, 0, 3, self.axis_1)
        root = self.op("Unsqueeze", self.op("Gather", "right_root", "candidates", axis=0), self.axis_1)
        cosine = self.op("Mul", self._slice(said, 3, 4, self.axis_1), root)
        mix = self.op("Max", self.op("Unsqueeze", "mix", self.axis_1), self.none)
        stacked = self.op("Concat", mix, follows_near_next, cosine, axis=1)
        logs = self.op("Log", self.op("Add", stacked, self.constant("epsilon", EPSILON, np.float32)))
        logs = self.op("Sub", logs, self.constant("log_epsilon", LOG_EPSILON, np.float32))
        logs = self.op("Mul", logs, self.constant("tenth", 0.1, np.float32))
        popular = self._rows(self.op("Gather", "popularity", "candidates", axis=0))
        has = self.op("Cast", self.op("Cast", follows_near_next, to=TensorProto.BOOL), to=FLOAT)
        own = self._rows(self.op("Gather", self.own_channels, self.places, axis=0))
        place, inside = self._slice(own, 0, 1, self.axis_1), self._slice(own, 1, 2, self.axis_1)
        per_length = self.op("Div", inside, self.op("Unsqueeze", self.length, self.axis_2))
        newest = self.op("Cast", self.op("Equal", place, self.one), to=FLOAT)
        log_3 = self._slice(logs, 0, 3, self.axis_1)
        popular_1 = self._slice(popular, 1, 2, self.axis_1)
        squares = self.op("Mul", log_3, log_3)
        popular_square = self.op("Mul", popular_1, popular_1)
        products = self.op("Mul", self._slice(logs, 1, 3, self.axis_1), popular_1)
        parts = (logs, popular, has, own, per_length, newest, squares, popular_square, products)
        self.op("Concat", *parts, out="features", axis=1)

    def _rows(self, values: str) -> str:
        return self.op("Transpose", values, perm=[0, 2, 1])

    def _rank(self) -> None:
        scores = self.op("MatMul", self.op("Unsqueeze", "weights", self.axis_1), "features")
        scores = self.op("Reshape", scores, self.constant("row", [0, CANDIDATES]))
        self.op("Where", self.op("Equal", "mix", self.lowest), self.lowest, scores, out="candidate_scores")
        self.nodes.append(helper.make_node("TopK", ["candidate_scores", "size"], ["scores", "order"], axis=-1))
        self.op("GatherElements", "candidates", "order", out="ids", axis=1)


def blend_model() -> ModelProto:
    """The graph, checked by onnx."""
    built = BlendGraph()
    graph = helper.make_graph(
        built.nodes,
        "freshet-online",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in INPUTS.items()],
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in OUTPUTS.items()],
        [numpy_helper.from_array(value, name) for name, value in built.constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="freshet")
