"""From the FP32 graph to the INT8 graph that is served: a quarter of the weights, and faster at every batch size.

Weights are quantised once, symmetrically, with one scale per item. Activations are quantised in the graph, each user's
on its own: :mod:`models.graph` brings them to -1..1 first, so one fixed step of 1/127 serves all and no user's scores
depend on another's.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from models.graph import Factors, Floats, Graph, columns, factors_of, filled, rank, user
from schemas.errors import ModelError

ACTIVATION_STEPS: Final = 127
"""Activations are -127..127, stored as uint8 around 128."""
WEIGHT_STEPS: Final = 64
"""Weights are -64..64: two products of uint8 and int8 then fit int16, where AVX2 without VNNI would saturate."""


def int8_of(fp32: ModelProto) -> ModelProto:
    """The INT8 twin of a graph that :func:`models.graph.fp32_model` made; :class:`ModelError` for any other."""
    try:
        factors = factors_of(fp32)
    except KeyError as error:
        raise ModelError(f"the graph has no constant {error}: only the built-in model can be quantised here") from error
    return int8_model(factors, fp32.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def int8_model(factors: Factors, top_k: int) -> ModelProto:
    """The same model with both embeddings in INT8, one scale an item, and activations in INT8 on a fixed scale."""
    graph = Graph()
    inward, inward_scale = quantised(factors.in_embedding, axis=1, steps=ACTIVATION_STEPS)
    rows = graph.op("Gather", graph.constant("in_embedding_int8", inward), "items", axis=0)
    scales = graph.op("Gather", graph.constant("in_scale", inward_scale), "items", axis=0)
    lagged = graph.op("Mul", "weights", graph.constant("lag_weights", factors.lag_weights))
    vector = user(graph, graph.op("Cast", rows, to=TensorProto.FLOAT), graph.op("Mul", lagged, scales))
    scores = _product(graph, vector, factors)
    rank(graph, scores, columns(factors), top_k)
    return graph.model(top_k)


def quantised(values: Floats, axis: int, steps: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Symmetric INT8: ``values`` is about ``q * scale``, with one scale for each slice along ``axis``."""
    peak = np.abs(values).max(axis=axis, keepdims=True)
    scale = np.where(peak > 0, peak / steps, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), np.squeeze(scale, axis=axis)


def _product(graph: Graph, vector: str, factors: Factors) -> str:
    """``user @ out_embedding + bias`` by integers, float32[users, columns]."""
    width = columns(factors)
    outward, scale = quantised(factors.out_embedding, axis=0, steps=WEIGHT_STEPS)
    steps = graph.op("Mul", vector, graph.constant("steps", np.array(ACTIVATION_STEPS, np.float32)))
    shifted = graph.op("Add", graph.op("Round", steps), graph.constant("zero", np.array(128, np.float32)))
    activations = graph.op("Cast", shifted, to=TensorProto.UINT8)
    return graph.op(
        "MatMulIntegerToFloat",
        activations,
        graph.constant("out_embedding_int8", filled(outward, width, 0)),
        graph.constant("one", np.array(1, np.float32)),
        graph.constant("out_scale", filled(scale / np.float32(ACTIVATION_STEPS), width, 1)),
        graph.constant("zero_point", np.array(128, np.uint8)),
        "",
        graph.constant("bias", filled(factors.bias, width, -np.inf)),
        domain="com.microsoft",
    )
