"""The ONNX graph of the built-in model, from its factors, in FP32 and in INT8.

What the graph computes for one user, with ``items[j]`` the item at position ``j`` (0 is the oldest, padding is row 0)::

    u      = sum over j of  weights[j] * lag_weights[j] * in_embedding[items[j]]     float32[dim]
    scores = (u / max|u|) @ out_embedding + bias                                     float32[columns]

and then the best ``top_k`` columns. Dividing by the largest component fixes the range of the activations, so that INT8
needs no scale that depends on other users: a user's scores are the same alone and in any batch. (Dynamic quantisation
as ``quantize_dynamic`` writes it takes one scale for the whole batch.) It also settles how much the bias, which is
the popularity of an item, counts against a long history and against a short one.

A user without known items has ``u = 0`` and gets the bias alone: the popular items.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models.manifest import RECENT_ITEMS_MAX

OPSET: Final = 21
IR_VERSION: Final = 10
GROUP: Final = 20
"""Columns in a group of the two-stage TopK."""
TWO_STAGE_FROM: Final = 2_000
"""Columns from which the two-stage TopK pays."""

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Factors:
    """The numbers of a model.

    ``in_embedding`` float32[items + 1, dim], row 0 zero; ``out_embedding`` float32[dim, items + 1];
    ``bias`` float32[items + 1], ``bias[0] = -inf`` so that padding is never returned;
    ``lag_weights`` float32[RECENT_ITEMS_MAX], oldest first.
    """

    in_embedding: Floats
    out_embedding: Floats
    bias: Floats
    lag_weights: Floats

    @property
    def items(self) -> int:
        """Real items, padding not counted."""
        return len(self.bias) - 1

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return len(self.out_embedding)


class Graph:
    """Collects nodes and constants; each method returns the name of the value that it adds."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}

    def op(self, kind: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, named ``out`` or after its kind and place."""
        output = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """Add a constant under ``name``; the same name is the same constant."""
        self.constants[name] = value
        return name

    def top_k(self, values: str, k: int, scores: str, ids: str, *, ordered: bool = True) -> None:
        """Add a TopK over the last axis that writes ``scores`` and ``ids``."""
        limit = self.constant(f"k_{k}", np.array([k], np.int64))
        self.nodes.append(helper.make_node("TopK", [values, limit], [scores, ids], axis=-1, sorted=int(ordered)))

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
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="freshet")


def _tensor(name: str, dtype: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def fp32_model(factors: Factors, top_k: int) -> ModelProto:
    """The model in FP32; its constants carry the names of :class:`Factors`: :func:`factors_of` reads them back."""
    graph = Graph()
    rows = graph.op("Gather", graph.constant("in_embedding", factors.in_embedding), "items", axis=0)
    weights = graph.op("Mul", "weights", graph.constant("lag_weights", factors.lag_weights))
    vector = user(graph, rows, weights)
    product = graph.op("MatMul", vector, graph.constant("out_embedding", factors.out_embedding))
    scores = graph.op("Add", product, graph.constant("bias", factors.bias))
    rank(graph, scores, factors.items + 1, top_k)
    return graph.model(top_k)


def factors_of(model: ModelProto) -> Factors:
    """Read the factors back from what :func:`fp32_model` made; raises ``KeyError`` for any other graph."""
    named = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    return Factors(named["in_embedding"], named["out_embedding"], named["bias"], named["lag_weights"])


def user(graph: Graph, rows: str, weights: str) -> str:
    """Weighted sum of rows float32[users, history, dim], divided by its largest component: float32[users, dim]."""
    middle = graph.constant("axis_1", np.array([1], np.int64))
    summed = graph.op("MatMul", graph.op("Unsqueeze", weights, middle), rows)
    vector = graph.op("Squeeze", summed, middle)
    peak = graph.op("ReduceMax", graph.op("Abs", vector), middle, keepdims=1)
    floor = graph.constant("peak_floor", np.array(1e-12, np.float32))
    return graph.op("Div", vector, graph.op("Max", peak, floor))


def columns(factors: Factors) -> int:
    """Score columns: items and padding, and where TopK works in two stages, filled up to whole groups."""
    width = factors.items + 1
    return width if width < TWO_STAGE_FROM else -(-width // GROUP) * GROUP


def filled(values: Array, width: int, with_: float) -> Array:
    """``values`` with its last axis filled up to ``width``."""
    missing = [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])]
    return np.pad(values, missing, constant_values=with_)


def rank(graph: Graph, scores: str, width: int, k: int) -> None:
    """Exact TopK of ``scores`` float32[users, width] in one stage or in two."""
    if width < TWO_STAGE_FROM or width % GROUP or width // GROUP < k:
        graph.top_k(scores, k, "scores", "ids")
    else:
        _rank_in_groups(graph, scores, width // GROUP, k)


def _rank_in_groups(graph: Graph, scores: str, groups: int, k: int) -> None:
    """The k best columns lie in the k groups with the best maxima: find those, then rank only what is in them."""
    size = graph.constant("group", np.array(GROUP, np.int64))
    last = graph.constant("axis_2", np.array([2], np.int64))
    grouped = graph.op("Reshape", scores, graph.constant("grouped", np.array([-1, groups, GROUP], np.int64)))
    graph.top_k(graph.op("ReduceMax", grouped, last, keepdims=0), k, "best_maxima", "best_groups")
    members = graph.op("GatherND", grouped, graph.op("Unsqueeze", "best_groups", last), batch_dims=1)
    flat = graph.op("Reshape", members, graph.constant("flat", np.array([-1, k * GROUP], np.int64)))
    graph.top_k(flat, k, "scores", "places")
    group = graph.op("GatherElements", "best_groups", graph.op("Div", "places", size), axis=1)
    graph.op("Add", graph.op("Mul", group, size), graph.op("Mod", "places", size), out="ids")
