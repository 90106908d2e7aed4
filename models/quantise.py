"""Converts the FP32 graph to the served INT8 graph: values take a quarter of the bytes, the file about 0.6.

The lists are the same except for rounding, and so is the cost: additions and ranking take the time, not the lookup.

Only weights are quantised: each item's values are stored as 8-bit integers with one scale per item, and multiplied in
FP32 after the lookup. No activation is quantised, so users of a batch share no scale. `quantize_dynamic` would share
one, which makes a user's scores depend on who else is in the batch.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from models.graph import Floats, Graph, finish, position_weights, transitions_of
from schemas.errors import ModelError

STEPS: Final = 255
"""Values are not negative, so all eight bits hold magnitude."""


def int8_of(fp32: ModelProto) -> ModelProto:
    """The INT8 form of a graph made by :func:`models.graph.fp32_model`; :class:`ModelError` for any other."""
    try:
        numbers = transitions_of(fp32)
    except KeyError as error:
        raise ModelError(f"the graph has no constant {error}: only the built-in model can be quantised here") from error
    graph = Graph()
    values, scales = quantised(numbers.values)
    looked_up = graph.op("Gather", graph.constant("values_int8", values, np.uint8), "items", axis=0)
    scale = graph.op("Gather", graph.constant("scales", scales, np.float32), "items", axis=0)
    weights = graph.op("Mul", position_weights(graph, numbers), scale)
    top_k = fp32.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    finish(graph, numbers, graph.op("Cast", looked_up, to=TensorProto.FLOAT), weights, top_k)
    return graph.model(top_k)


def quantised(values: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
    """``values`` float32[rows, n] >= 0 as ``(q uint8[rows, n], scales float32[rows])`` with ``q * scale`` nearest."""
    peak = values.max(axis=1)
    scales = np.where(peak > 0, peak / STEPS, 1).astype(np.float32)
    return np.rint(values / scales[:, None]).astype(np.uint8), scales
