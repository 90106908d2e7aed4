"""The ONNX graph of the built-in model, from its numbers.

The graph computes this for one user, with ``items[j]`` the item at position ``j`` (0 is the oldest, padding is row 0)::

    w[j]      = weights[j] / max(weights) * lag_weights[j]                 0 where items[j] is padding
    scores    = bias                                                       float32[items + 1]
    scores[neighbours[items[j], n]] += w[j] * values[items[j], n]          for each position j and neighbour n

and then the best ``top_k`` columns, ties by row. Only entries that the history refers to are added: at 10,000 items,
1,280 additions instead of the 640,000 multiplications of two embeddings of 64. That is cheaper for few users, the same
for many, and gives better lists than a factorisation of the same counts to 64 dimensions.

Every step works within one row, so a user's scores are the same, bit for bit, alone and in any batch.

Dividing by the largest weight makes the list depend on how recent items compare with one another, not on their common
age. A user without known items gets only the bias: the popular items.

Rows are ordered by popularity, which makes TopK fast: the first columns are nearly the best, so few of the others enter
its heap. Two-stage forms (maxima of groups, then the best groups' members) gained nothing.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models.manifest import RECENT_ITEMS_MAX

OPSET: Final = 21
IR_VERSION: Final = 10

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Transitions:
    """The numbers of a model.

    ``neighbours`` int32[items + 1, n] and ``values`` float32[items + 1, n] >= 0: which items tend to follow each item,
    and how strongly; row 0 and unused places hold neighbour 0 and value 0. ``bias`` float32[items + 1] with ``bias[0] =
    -inf``, so that padding is never returned. ``lag_weights`` float32[RECENT_ITEMS_MAX], oldest first.
    """

    neighbours: npt.NDArray[np.int32]
    values: Floats
    bias: Floats
    lag_weights: Floats

    @property
    def items(self) -> int:
        """The number of items, without padding."""
        return len(self.bias) - 1


class Graph:
    """Collects nodes and constants; :meth:`op` and :meth:`constant` return the name of the value that they add."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add a node with one output, named ``out`` or after its kind and index."""
        output = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        """Add a constant under ``name``; the same name refers to the same constant."""
        self.constants[name] = np.asarray(value, dtype)
        return name

    def top_k(self, values: str, k: int, scores: str, ids: str) -> None:
        """Add a TopK over the last axis, best first, that writes ``scores`` and ``ids``."""
        limit = self.constant(f"k_{k}", [k])
        self.nodes.append(helper.make_node("TopK", [values, limit], [scores, ids], axis=-1))

    def model(self, top_k: int) -> ModelProto:
        """The finished model: inputs ``items`` and ``weights``, outputs ``scores`` and ``ids``."""
        history, ranked = ["users", RECENT_ITEMS_MAX], ["users", top_k]
        graph = helper.make_graph(
            self.nodes,
            "freshet",
            [_tensor("items", TensorProto.INT32, history), _tensor("weights", TensorProto.FLOAT, history)],
            [_tensor("scores", TensorProto.FLOAT, ranked), _tensor("ids", TensorProto.INT64, ranked)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="freshet")


def _tensor(name: str, dtype: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def fp32_model(numbers: Transitions, top_k: int) -> ModelProto:
    """The model in FP32; its constants have the names of :class:`Transitions`, for :func:`transitions_of`."""
    graph = Graph()
    values = graph.op("Gather", graph.constant("values", numbers.values, np.float32), "items", axis=0)
    finish(graph, numbers, values, position_weights(graph, numbers), top_k)
    return graph.model(top_k)


def transitions_of(model: ModelProto) -> Transitions:
    """Read the numbers back from what :func:`fp32_model` made; raises ``KeyError`` for any other graph."""
    named = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    return Transitions(named["neighbours"], named["values"], named["bias"][0], named["lag_weights"])


def position_weights(graph: Graph, numbers: Transitions) -> str:
    """The weight of each position: float32[users, history]."""
    known = graph.op("Cast", graph.op("Cast", "items", to=TensorProto.BOOL), to=TensorProto.FLOAT)
    weights = graph.op("Mul", "weights", known)
    largest = graph.op("ReduceMax", weights, graph.constant("axis_1", [1]), keepdims=1)
    divisor = graph.op("Max", largest, graph.constant("smallest_weight", 1e-30, np.float32))
    lagged = graph.op("Mul", weights, graph.constant("lag_weights", numbers.lag_weights, np.float32))
    return graph.op("Div", lagged, divisor)


def finish(graph: Graph, numbers: Transitions, values: str, weights: str, top_k: int) -> None:
    """From the neighbours' values float32[users, history, n] and weights float32[users, history] to the ranked list."""
    rows = graph.op("Gather", graph.constant("neighbours", numbers.neighbours, np.int32), "items", axis=0)
    flat = graph.constant("flat_neighbours", [-1, RECENT_ITEMS_MAX * numbers.neighbours.shape[1]])
    added = graph.op("Mul", values, graph.op("Unsqueeze", weights, graph.constant("axis_2", [2])))
    columns = numbers.items + 1
    shape = graph.op("Concat", graph.op("Shape", "items", end=1), graph.constant("columns", [columns]), axis=0)
    base = graph.op("Expand", graph.constant("bias", numbers.bias[None, :], np.float32), shape)
    places, additions = graph.op("Reshape", rows, flat), graph.op("Reshape", added, flat)
    scores = graph.op("ScatterElements", base, places, additions, axis=1, reduction="add")
    graph.top_k(scores, top_k, "scores", "ids")
