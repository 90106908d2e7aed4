"""Reads an ONNX file with its external weights (``MODEL.onnx.data``, as PyTorch's exporter writes them)."""

from pathlib import Path
from typing import Any, Final

import onnx
from onnx.external_data_helper import _get_all_tensors, load_external_data_for_model, uses_external_data

from schemas.errors import ModelError

MODEL_BYTES_MAX: Final = 2**31 - 1
"""The maximum size of one ONNX file."""


def load_graph(model: Path) -> tuple[Any, bytes]:
    """The graph, and its bytes as one file, with its weights. Raises :class:`ModelError`."""
    served = _read(model)
    graph = _parsed(served, model)
    if not any(uses_external_data(tensor) for tensor in _get_all_tensors(graph)):
        return graph, served
    try:
        load_external_data_for_model(graph, str(model.parent))
    except Exception as error:  # as in _parsed
        raise ModelError(
            f"{model} keeps weights in another file, which cannot be read: {error}: put it beside the model, "
            "under the name that it was exported with"
        ) from None
    if graph.ByteSize() > MODEL_BYTES_MAX:
        raise ModelError(f"{model} has {graph.ByteSize()} bytes with its weights, at most {MODEL_BYTES_MAX} are taken")
    return graph, graph.SerializeToString(deterministic=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _parsed(served: bytes, model: Path) -> Any:
    try:
        graph = onnx.load_model_from_string(served)
    except Exception as error:  # protobuf's own exception, which onnx does not export
        raise ModelError(f"{model} is not an ONNX file: {error}") from None
    if not graph.graph.node:
        raise ModelError(f"{model} is not an ONNX file: it has no graph")
    return graph
