"""Adopts your own model (`freshet model adopt`).

The graph, exported from PyTorch, TensorFlow or anything else, takes ``items`` int32[users, 20] (rows of the user's
recent items, newest last, 0 is padding) and, optionally, ``weights`` float32[users, 20]. It returns either ``scores``
float32[users, items + 1], one per row, or the best items ranked: ``scores`` float32[users, k] and ``ids`` int32 or
int64[users, k]. The items file has one item id per line; line n is row n, row 0 is padding.

External weights (``MODEL.onnx.data``) are included. The items file is UTF-8 or UTF-16, with any line ends. The model is
run before anything is written: whatever the job would refuse is refused here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnx
from onnx.external_data_helper import _get_all_tensors, load_external_data_for_model, uses_external_data

from models.manifest import (
    MODEL_FILE,
    RECENT_ITEMS_MAX,
    Manifest,
    Tensor,
    TrainingWindow,
    check_items,
    encode_items,
    sha256_of,
    write,
)
from models.model_directory import replaced
from models.scorer import Scorer
from models.text_files import lines_of
from schemas.errors import ModelError

TOP_K: Final = 50
MODEL_BYTES_MAX: Final = 2**31 - 1
"""The maximum size of one ONNX file."""
_DTYPES: Final = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT32: "int32", onnx.TensorProto.INT64: "int64"}
_QUANTISED: Final = {"MatMulInteger", "DynamicQuantizeLinear", "QLinearMatMul", "DequantizeLinear"}


def adopt(model: Path, items: Sequence[str], name: str, directory: Path, top_k: int = TOP_K) -> Manifest:
    """Write a model directory for the graph in ``model``, replacing an existing model.

    ``top_k`` is how many rows to rank if the graph returns plain scores; a graph that ranks has its own k. Raises
    :class:`ModelError`, which says what to fix, for anything that the job could not run.
    """
    graph, served = _load_graph(model)
    outputs = {value.name: value for value in graph.graph.output}
    ranked = "ids" in outputs
    top_k = _width(outputs["ids"], model) if ranked else min(top_k, len(items))
    lists = ("users", top_k)
    constants = {constant.name for constant in graph.graph.initializer}
    inputs = [value.name for value in graph.graph.input if value.name not in constants]
    history = ("users", RECENT_ITEMS_MAX)
    kinds = {"items": Tensor("int32", history), "weights": Tensor("float32", history)}
    manifest = Manifest(
        name=name,
        sha256=sha256_of(served),
        size_bytes=len(served),
        opset=max((entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")), default=0),
        inputs={each: kinds.get(each, Tensor("float32", history)) for each in inputs},
        outputs=(
            {"scores": Tensor("float32", lists), "ids": Tensor(_dtype(outputs["ids"]), lists)}
            if ranked
            else {"scores": Tensor("float32", ("users", len(items) + 1))}
        ),
        top_k=top_k,
        items_sha256=sha256_of(encode_items(items)),
        items_count=len(items),
        quantisation="int8-dynamic" if any(node.op_type in _QUANTISED for node in graph.graph.node) else "fp32",
        training_window=TrainingWindow(0, 0, 0, 0, len(items)),
        metrics={},
        popular=(),
        popular_min_users=1,
        kind_weights={},
    )
    with replaced(directory) as staging:
        (staging / MODEL_FILE).write_bytes(served)
        write(staging, manifest, items)
        try:
            Scorer.open(staging)
        except ModelError as error:
            raise ModelError(str(error).replace(str(staging / MODEL_FILE), str(model))) from None
    return manifest


def items_in(file: Path) -> list[str]:
    """The item ids in ``file``, in row order. Raises :class:`ModelError` or :class:`FileError`."""
    items = lines_of(file)
    check_items(items, str(file))
    return items


def _load_graph(model: Path) -> tuple[Any, bytes]:
    """The graph, and the bytes to serve as one file.

    External weights (``model.onnx.data``, as PyTorch's exporter writes them) are included.
    """
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
        return onnx.load_model_from_string(served)
    except Exception as error:  # protobuf's own exception, which onnx does not export
        raise ModelError(f"{model} is not an ONNX file: {error}") from None


def _width(value: Any, model: Path) -> int:
    dimensions = value.type.tensor_type.shape.dim
    if len(dimensions) != 2 or not dimensions[1].dim_value:
        raise ModelError(f"{model}: output 'ids' must be [users, k] with a fixed k: export it with one")
    return int(dimensions[1].dim_value)


def _dtype(value: Any) -> str:
    return _DTYPES.get(value.type.tensor_type.elem_type, "of another type")
