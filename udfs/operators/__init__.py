"""Flink operators: shells around the rules in `udfs/`. Only this folder imports PyFlink."""

from schemas.threads import in_background


def _load() -> None:
    import onnx  # noqa: F401


# While it is imported, onnx calls Python in a way that ends the process if Python finds another state for the thread
# (`udfs/operators/interpreter.py`), as it does in an operator that is chained behind others. In a thread of its own, it
# finds the right one. Flink imports this package before any operator is made.
in_background("freshet-import", _load).join()
