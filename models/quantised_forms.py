"""The forms in which a model can be served, made from its FP32 graph.

``int8-weights`` is our own (:mod:`models.quantise`), for the built-in model only: its graph looks values up and adds
them, and has no matrix multiplication for the tools of onnxruntime to quantise.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from models.quantise import int8_of
from schemas.errors import ModelError

FP32: Final = "fp32"
FORMS: Final = (FP32, "fp16", "int8-weights", "int8-dynamic", "int8-static")
CALIBRATED_USERS: Final = 32
Feed = Mapping[str, npt.NDArray[Any]]
"""Inputs by name, for all users of the calibration."""


def form_of(name: str, graph: bytes, feed: Feed) -> bytes:
    """The FP32 `graph` in the form `name`; `feed` calibrates static quantisation.

    Raises :class:`ModelError` for a graph of which there is no such form.
    """
    try:
        return _MADE[name](graph, feed)
    except ModelError:
        raise
    except Exception as error:  # each tool raises its own
        raise ModelError(f"there is no form {name} of this graph: {error}") from error


def _fp16(graph: bytes, feed: Feed) -> bytes:
    """Inputs and outputs stay as they are."""
    found: bytes = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True).SerializeToString()
    return found


def _int8_weights(graph: bytes, feed: Feed) -> bytes:
    found: bytes = int8_of(onnx.load_from_string(graph)).SerializeToString(deterministic=True)
    return found


def _int8_dynamic(graph: bytes, feed: Feed) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        source, target = _stored(graph, Path(scratch))
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
        return target.read_bytes()


def _int8_static(graph: bytes, feed: Feed) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        source, target = _stored(graph, Path(scratch))
        quantize_static(source, target, _Batches(feed), quant_format=QuantFormat.QDQ, per_channel=True)
        return target.read_bytes()


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """The feed in batches."""

    def __init__(self, feed: Feed) -> None:
        self._parts = self._split(feed)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """Called by onnxruntime until there is no more."""
        return next(self._parts, None)

    @staticmethod
    def _split(feed: Feed) -> Iterator[dict[str, npt.NDArray[Any]]]:
        users = max((len(column) for column in feed.values()), default=0)
        for begin in range(0, users, CALIBRATED_USERS):
            yield {
                name: np.ascontiguousarray(column[begin : begin + CALIBRATED_USERS]) for name, column in feed.items()
            }


def _stored(graph: bytes, folder: Path) -> tuple[Path, Path]:
    source = folder / "fp32.onnx"
    source.write_bytes(graph)
    return source, folder / "quantised.onnx"


_MADE: Final[Mapping[str, Callable[[bytes, Feed], bytes]]] = {
    FP32: lambda graph, feed: graph,
    "fp16": _fp16,
    "int8-weights": _int8_weights,
    "int8-dynamic": _int8_dynamic,
    "int8-static": _int8_static,
}
