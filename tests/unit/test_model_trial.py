"""Models that fail on some of the histories that shops send are refused before they serve."""

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import run_limit
from models.adopt import adopt
from models.manifest import RECENT_ITEMS_MAX
from models.random_model import random_model
from models.scorer import Scorer
from models.trial import Answer, Histories, Weights, find_fault
from schemas.errors import ModelError
from tests.support.models import edit_manifest, endless_turn

ITEMS, TOP_K = 30, 5
NAMES = [f"item-{row}" for row in range(1, ITEMS + 1)]


def a_graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """items → scores float32[users, ITEMS + 1] by `nodes`, which are given `table` and a float `mask` [users, 20]."""
    table = np.random.default_rng(1).random((ITEMS + 1, ITEMS + 1)).astype(np.float32)
    given = [
        helper.make_node("Cast", ["items"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Greater", ["items", "zero"], ["real"]),
        helper.make_node("Cast", ["real"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["table", "whole"], ["vectors"]),
    ]
    graph = helper.make_graph(
        [*given, *nodes],
        "somebody's",
        [helper.make_tensor_value_info("items", TensorProto.INT32, ["users", RECENT_ITEMS_MAX])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["users", ITEMS + 1])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array(0, np.int32), "zero"),
            numpy_helper.from_array(np.array([1], np.int64), "middle"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
            numpy_helper.from_array(np.array(-np.inf, np.float32), "never"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def averaged(mask: str = "mask", length: str = "length") -> list[onnx.NodeProto]:
    """Σ vector·mask / Σ mask, the usual form."""
    return [
        helper.make_node("Unsqueeze", [mask, "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "middle"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "one"], ["guarded"]),
        helper.make_node("Div", ["summed", length], ["scores"]),
    ]


MASKED_AVERAGE = a_graph(*averaged())
GUARDED_AVERAGE = a_graph(*averaged(length="guarded"))
MASKED_SOFTMAX = a_graph(
    helper.make_node("Where", ["real", "mask", "never"], ["logits"]),
    helper.make_node("Softmax", ["logits"], ["attention"], axis=1),
    *averaged(mask="attention", length="guarded"),
)
RANDOM = a_graph(
    *averaged(length="guarded")[:-1],
    helper.make_node("Div", ["summed", "guarded"], ["sure"]),
    helper.make_node("RandomUniformLike", ["sure"], ["noise"]),
    helper.make_node("Add", ["sure", "noise"], ["scores"]),
)

CENTRED = a_graph(
    *averaged(length="guarded")[:-1],
    helper.make_node("Div", ["summed", "guarded"], ["sure"]),
    helper.make_node("ReduceMean", ["sure"], ["of_all"], axes=[0], keepdims=1),
    helper.make_node("Sub", ["sure", "of_all"], ["scores"]),
)
SOFTMAX_OF_ALL = a_graph(
    *averaged(length="guarded")[:-1],
    helper.make_node("Div", ["summed", "guarded"], ["sure"]),
    helper.make_node("Softmax", ["sure"], ["scores"], axis=0),
)


def adopted(model: onnx.ModelProto, folder: Path) -> Path:
    (folder / "mine.onnx").write_bytes(model.SerializeToString())
    adopt(folder / "mine.onnx", NAMES, "mine-1", folder / "model", TOP_K)
    return folder / "model"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (MASKED_AVERAGE, "an empty history, .* not finite"),
        (MASKED_SOFTMAX, "an empty history, .* not finite"),
        (RANDOM, "differs from call to call"),
        (CENTRED, "an operator works across users"),
        (SOFTMAX_OF_ALL, "an operator works across users"),
    ],
    ids=["masked average", "masked softmax", "random", "centred over users", "softmax over users"],
)
@pytest.mark.promise("model-fails-safe")
def test_a_model_that_fails_on_some_histories_is_not_adopted(model: onnx.ModelProto, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        adopted(model, tmp_path)
    assert not (tmp_path / "model").exists()


def endless() -> onnx.ModelProto:
    """A graph with a loop of 2^60 iterations."""
    model = a_graph(
        *averaged(length="guarded")[:-1],
        helper.make_node("Div", ["summed", "guarded"], ["sure"]),
        helper.make_node("Loop", ["turns", "yes", "sure"], ["scores"], body=endless_turn()),
    )
    numbers = [np.array(2**60, np.int64), np.array(True)]
    model.graph.initializer.extend(map(numpy_helper.from_array, numbers, ["turns", "yes"]))
    return model


def test_hanging_model_is_stopped_and_not_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_limit, "RUN_MAX_S", 0.2)
    with pytest.raises(ModelError, match=r"stopped after 0\.2 s"):
        adopted(endless(), tmp_path)
    assert not (tmp_path / "model").exists()


def test_watchdog_thread_ends_with_the_model(tmp_path: Path) -> None:
    def watching() -> int:
        return sum(thread.name == "freshet-run-limit" for thread in threading.enumerate())

    before = watching()
    scorer = Scorer.open(adopted(GUARDED_AVERAGE, tmp_path))
    assert watching() > before
    del scorer
    gc.collect()
    for _ in range(100):
        if watching() <= before:
            return
        time.sleep(0.1)
    raise AssertionError("the thread goes on")


def test_a_guarded_average_is_adopted(tmp_path: Path) -> None:
    assert Scorer.open(adopted(GUARDED_AVERAGE, tmp_path)).manifest.top_k == TOP_K


def test_a_manifest_of_another_width_is_refused_at_submission(tmp_path: Path) -> None:
    random_model(tmp_path / "model", items=ITEMS, top_k=TOP_K)
    edit_manifest(tmp_path / "model", recent_items_max=10)
    with pytest.raises(ModelError, match="recent_items_max is 10, histories have 20 items"):
        Scorer.open(tmp_path / "model")


def fine(histories: Histories, weights: Weights) -> Answer:
    users = len(histories)
    return np.ones((users, TOP_K), np.float32), np.tile(np.arange(1, TOP_K + 1), (users, 1))


def short(histories: Histories, weights: Weights) -> Answer:
    scores, rows = fine(histories, weights)
    return scores[:1], rows[:1]


def foreign(histories: Histories, weights: Weights) -> Answer:
    scores, rows = fine(histories, weights)
    return scores, rows + ITEMS * (histories[:, -1:] == ITEMS)


def repeated(histories: Histories, weights: Weights) -> Answer:
    scores, rows = fine(histories, weights)
    return scores, np.where(histories[:, :1] > 0, 1, rows)


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (fine, None),
        (short, "a batch of 64 mixed histories is [1, 5], not [64, 5]"),
        (foreign, "the last item again and again holds a row outside 1..30"),
        (repeated, "a full history names a row twice"),
    ],
)
def test_fault_and_triggering_history_are_named(
    score: Callable[[Histories, Weights], Answer], said: str | None
) -> None:
    fault = find_fault(score, ITEMS, RECENT_ITEMS_MAX, TOP_K)
    assert fault is None if said is None else fault is not None and said in fault
