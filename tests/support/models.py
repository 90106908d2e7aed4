"""Slow, obvious twins of the computations in models/, and small models for tests."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.graph import Transitions
from models.interactions import Interactions, from_rows
from models.manifest import MANIFEST_FILE, MODEL_FILE, RECENT_ITEMS_MAX, Manifest, sha256_of

DAY = 86_400_000
BEGINNING = 1_700_000_000_000


def naive_scores(numbers: Transitions, items: Sequence[int], weights: Sequence[float]) -> list[float]:
    """The score of every row for one user, one addition at a time."""
    scores = [float(bias) for bias in numbers.bias]
    counted = [weight if item else 0.0 for item, weight in zip(items, weights, strict=True)]
    largest = max(counted)
    for position, item in enumerate(items):
        if largest <= 0 or not item:
            continue
        weight = counted[position] / largest * float(numbers.lag_weights[position])
        for neighbour, value in zip(numbers.neighbours[item], numbers.values[item], strict=True):
            scores[neighbour] += weight * float(value)
    return scores


def naive_ndcg(ranked: Sequence[int], wanted: set[int], k: int) -> float:
    """DCG over the DCG of the best list, as in the textbook."""
    gained = sum(1 / math.log2(rank + 1) for rank, item in enumerate(ranked[:k], start=1) if item in wanted)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    return gained / best


def history(*rows: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """One user's recent rows, newest last, padded on the left: int32[1, 20]."""
    return np.array([[0] * (RECENT_ITEMS_MAX - len(rows)) + list(rows)], np.int32)


def purchases(*baskets: tuple[str, int, str], kind: str = "purchase") -> Interactions:
    """Interactions from ``(user, day, "a b c")``: a basket of items that share one time."""
    return from_rows(
        {"pseudonym": user, "type": kind, "ts": BEGINNING + day * DAY, "item_id": item}
        for user, day, items in baskets
        for item in items.split()
    )


def edit_manifest(directory: Path, **changes: Any) -> None:
    """Overwrite fields of a manifest as a hand would, unchecked."""
    path = directory / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def put_graph(directory: Path, model: onnx.ModelProto, **changes: Any) -> None:
    """Replace ``model.onnx`` and correct the manifest's digest and size."""
    content = model.SerializeToString()
    (directory / MODEL_FILE).write_bytes(content)
    edit_manifest(directory, sha256=sha256_of(content), size_bytes=len(content), **changes)


def plain_model(items: int, users: int | str = "users") -> onnx.ModelProto:
    """A graph as another framework would export it: one input, plain scores float32[users, items + 1].

    The score of a row is how often it is in the history; padding's is the highest of all.
    """
    width = items + 1
    nodes = [
        helper.make_node("Unsqueeze", ["items", "last"], ["column"]),
        helper.make_node("Equal", ["column", "rows"], ["same"]),
        helper.make_node("Cast", ["same"], ["hits"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["hits", "middle"], ["scores"], keepdims=0),
    ]
    constants = [
        helper.make_tensor("rows", TensorProto.INT32, [width], range(width)),
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("middle", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("items", TensorProto.INT32, [users, RECENT_ITEMS_MAX])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [users, width])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def endless_turn() -> onnx.GraphProto:
    """One iteration of a loop that never ends, and passes on its input."""
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go on"]), helper.make_node("Mul", ["sum", "unit"], ["next"])],
        "turn",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.array(1.0, np.float32), "unit")],
    )


def manifest_of(directory: Path) -> Manifest:
    """The manifest as stored, unchecked."""
    return msgspec.json.decode((directory / MANIFEST_FILE).read_bytes(), type=Manifest)
