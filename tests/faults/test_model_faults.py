"""A model that passed every trial and fails in a real job: its users get popular lists, and the job continues.

The graph hangs, raises or returns NaN for histories with certain items, which no trial contains.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from adapters.secrets.key_rings import load_key_ring
from models.adopt import adopt
from serving.reader import Reader
from tests.support.live import Live, start_live, until
from tests.support.models import endless_turn, plain_model

ITEMS = 40
NAMES = [f"item-{row:02d}" for row in range(1, ITEMS + 1)]
HANGS, RAISES, NAN = 31, 32, 33
"""The rows of the items that do it. Trials use the first twenty, and the last one."""


def faulty_model() -> ModelProto:
    """:func:`plain_model` with faults added after it."""
    model = plain_model(ITEMS)
    graph = model.graph
    graph.node[-1].output[0] = "sound"
    graph.node.extend(
        [
            *counted("hangs", everybody=True),
            helper.make_node("Mul", ["hangs count", "many"], ["turns"]),
            helper.make_node("Loop", ["turns", "yes", "sound"], ["ended"], body=endless_turn()),
            *counted("raises", everybody=True),
            helper.make_node("Mul", ["raises count", "many"], ["place"]),
            helper.make_node("Gather", ["nothing", "place"], ["zero"]),
            helper.make_node("Add", ["ended", "zero"], ["found"]),
            *counted("nan", everybody=False),
            helper.make_node("Cast", ["nan count"], ["nan float"], to=TensorProto.FLOAT),
            helper.make_node("Neg", ["nan float"], ["below zero"]),
            helper.make_node("Sqrt", ["below zero"], ["none or nan"]),
            helper.make_node("Add", ["found", "none or nan"], ["scores"]),
        ]
    )
    constants = {
        "hangs row": np.array(HANGS, np.int32),
        "raises row": np.array(RAISES, np.int32),
        "nan row": np.array(NAN, np.int32),
        "many": np.array(2**40, np.int64),
        "yes": np.array(True),
        "nothing": np.zeros(1, np.float32),
        "columns": np.array([1], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def counted(name: str, everybody: bool) -> list[object]:
    """How often the row `name` occurs in all histories of the batch, or in each: int64[] or int64[users, 1]."""
    axes = ([f"{name} hits"], {"keepdims": 0}) if everybody else ([f"{name} hits", "columns"], {"keepdims": 1})
    return [
        helper.make_node("Equal", ["items", f"{name} row"], [f"{name} same"]),
        helper.make_node("Cast", [f"{name} same"], [f"{name} hits"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", axes[0], [f"{name} count"], **axes[1]),
    ]


def adopted(directory: Path, name: str = "faulty-1") -> None:
    file = directory.with_suffix(".onnx")
    file.write_bytes(faulty_model().SerializeToString())
    adopt(file, NAMES, name, directory, 10)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = start_live(tmp_path_factory.mktemp("model-faults"), model=adopted)
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


@pytest.mark.promise("model-fails-safe")
def test_failing_model_costs_ranking_but_not_the_job(live: Live) -> None:
    fans = [f"fan-{n}" for n in range(12)]
    live.consent(["ada", "bob", "cyd", "dan", *fans])
    live.interact("ada", "item-01")
    assert live.wait_for_version("ada", 2).reason == "personalised"
    for fan in fans:
        live.interact(fan, "item-05")
    until(live.popular, "a popular list")
    reader = Reader(live.product.endpoints["redis"], load_key_ring(live.product.endpoints["key_ring"]))
    for number, (user, row) in enumerate((("bob", NAN), ("cyd", RAISES), ("dan", HANGS)), start=2 + len(fans)):
        live.interact(user, NAMES[row - 1])
        live.wait_until_accounted(number)
        answer = reader.recommend(user)
        assert (answer.reason, [item.id for item in answer.items]) == ("popular", ["item-05"])
    reader.close()
    live.consent(["eve"])
    live.consent(["ada"], "none")
    assert live.list_of("ada") is None
    assert live.stack.rest.exceptions(live.job_id) == ""
    assert live.wait_until_accounted(live.accounted())["rejected"] == {}
