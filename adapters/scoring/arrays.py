"""What all clients of inference servers share: arrays by name, their types, and how an answer fails."""

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.errors import ModelUnavailable

Arrays = dict[str, npt.NDArray[Any]]
DATATYPES: Final = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
"""The datatypes of the Open Inference Protocol."""
NAME_OF: Final = {np.dtype(kind): name for name, kind in DATATYPES.items()}


class InferenceClient(Protocol):
    """One model of one server. Used by one thread."""

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: list[str], deadline_s: float) -> Arrays:
        """The `outputs` for `inputs`, within `deadline_s`; raises :class:`ModelUnavailable`."""
        ...

    def describe(self, deadline_s: float) -> str:
        """What the server says of the model, in words; raises :class:`ModelUnavailable`."""
        ...


def parsed(body: bytes) -> Any:
    """The JSON in `body`. NaN and Infinity, which are no JSON, are read, as some servers write them."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ModelUnavailable("the answer is not JSON") from None


def array_of(values: Any, dtype: npt.DTypeLike, shape: Any = None) -> npt.NDArray[Any]:
    """`values` of an answer as an array; raises :class:`ModelUnavailable` if they are none.

    Floating-point numbers of JSON have 64 bits, whatever type the answer names: it may write more than that type holds.
    """
    if isinstance(values, list) and np.issubdtype(dtype, np.floating):
        dtype = np.float64
    try:
        array = np.array(values, dtype)
        return array if shape is None else array.reshape([int(size) for size in shape])
    except (ValueError, TypeError, OverflowError):
        raise ModelUnavailable("an output is not an array of numbers of its shape") from None


def guessed(values: Any) -> npt.NDArray[Any]:
    """An array of an answer that names no types: integers, or float64."""
    try:
        array = np.array(values)
    except ValueError:
        raise ModelUnavailable("an output is not an array of numbers") from None
    return array if array.dtype.kind in "iu" else array_of(values, np.float64)
