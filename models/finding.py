"""A line of `freshet model check`: what the contract says about one thing in the file, and how to mend it."""

from typing import Final, Literal

import msgspec
from onnx import TensorProto

Verdict = Literal["ok", "adapted", "wrong", "skipped"]
SIGNS: Final[dict[Verdict, str]] = {"ok": "✓", "adapted": "✓", "wrong": "✗", "skipped": "–"}
_NAMES: Final = {"FLOAT": "float32", "DOUBLE": "float64"}


class ContractFinding(msgspec.Struct, frozen=True):
    """``what`` is the thing, ``found`` what the file has. ``note`` is what adopting changes, or the change to make."""

    what: str
    verdict: Verdict
    found: str = ""
    note: str = ""

    def line(self) -> str:
        """One line for people."""
        return f"{SIGNS[self.verdict]} {self.what}: {': '.join(filter(None, (self.found, self.note)))}"


def dtype_name(element_type: int) -> str:
    """The name of an ONNX element type, as numpy has it.

    >>> dtype_name(TensorProto.FLOAT), dtype_name(TensorProto.INT64), dtype_name(TensorProto.BFLOAT16)
    ('float32', 'int64', 'bfloat16')
    """
    name: str = TensorProto.DataType.Name(element_type)
    return _NAMES.get(name, name.lower())


def in_short(error: Exception) -> str:
    """The text of an exception of onnxruntime in one line, without the places in its own sources."""
    text = " ".join(str(error).split())
    return text if len(text) <= ERROR_MAX else f"{text[:ERROR_MAX]}…"


ERROR_MAX: Final = 400
