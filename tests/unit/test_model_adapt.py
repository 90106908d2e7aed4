"""Graphs that differ from the contract are adapted: the result is what the graph itself would return."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models.adopt import adopt
from models.check import check
from models.manifest import MODEL_FILE
from models.scorer import Scorer
from schemas.errors import ModelError
from tests.support.examples import examples
from tests.support.models import history, plain_model

ITEMS = 12
NAMES = [f"item-{row}" for row in range(1, ITEMS + 1)]
TOP_K = 5
RANKED = {"int32": TensorProto.INT32, "int64": TensorProto.INT64, "int8": TensorProto.INT8}


class Shape(NamedTuple):
    """A graph as somebody might export it. `users` is `free`, `one`, or `bare` without that dimension."""

    opset: int = 17
    input_type: int = TensorProto.INT64
    output_type: int = TensorProto.FLOAT
    users: str = "free"
    width: int | None = 20
    output: str = "plain"
    input_name: str = "items"
    output_name: str = "scores"


SHAPES = st.builds(
    Shape,
    st.integers(17, 23),
    st.sampled_from([TensorProto.INT32, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT16]),
    st.sampled_from([TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE]),
    st.sampled_from(["free", "one", "bare"]),
    st.sampled_from([1, 7, 20, 33, None]),
    st.sampled_from(["plain", "without row 0", "positions", "int32", "int64", "int8"]),
    st.sampled_from(["items", "input_ids", "serving_default_items:0", "scores", "mask"]),
    st.sampled_from(["scores", "logits", "items", "Identity:0"]),
)


def a_graph(shape: Shape) -> onnx.ModelProto:
    """The score of a row is the sum of the places (from 1, of the width) at which it is in the history."""
    bare = shape.users == "bare"
    op = helper.make_node
    nodes = [
        op("Unsqueeze", [shape.input_name, "zero"], ["in/batch"])
        if bare
        else op("Identity", [shape.input_name], ["in/batch"]),
        op("Cast", ["in/batch"], ["in/rows"], to=TensorProto.INT64),
        op("Unsqueeze", ["in/rows", "two"], ["column"]),
        op("Equal", ["column", "rows"], ["same"]),
        op("Cast", ["same"], ["hit"], to=TensorProto.FLOAT),
        op("Shape", ["in/rows"], ["size"], start=1),
        op("Squeeze", ["size", "zero"], ["width"]),
        op("Range", ["n-one", "past", "n-step"], ["places"]),
        op("Add", ["width", "n-step"], ["past"]),
        op("Cast", ["places"], ["weights"], to=TensorProto.FLOAT),
        op("Unsqueeze", ["weights", "zero-two"], ["weight"]),
        op("Mul", ["hit", "weight"], ["placed"]),
        op("CumSum", ["placed", "n-step"], ["sums"])
        if shape.output == "positions"
        else op("ReduceSum", ["placed", "one"], ["sums"], keepdims=0),
    ]
    nodes[7], nodes[8] = nodes[8], nodes[7]
    ends = {shape.output_name: "sums"}
    if shape.output == "without row 0" or shape.output in RANKED:
        nodes.append(op("Slice", ["sums", "one", "end", "one"], ["real"]))
        ends[shape.output_name] = "real"
    if shape.output in RANKED:
        nodes += [op("TopK", ["real", "k"], ["best", "at"]), op("Add", ["at", "one"], ["at/rows"])]
        nodes.append(op("Cast", ["at/rows"], ["at/cast"], to=RANKED[shape.output]))
        ends = {shape.output_name: "best", "rows/best": "at/cast"}
    return _model(shape, nodes, ends)


def _model(shape: Shape, nodes: list[onnx.NodeProto], ends: dict[str, str]) -> onnx.ModelProto:
    outputs = []
    for name, made in ends.items():
        kind = RANKED[shape.output] if name == "rows/best" else shape.output_type
        nodes.append(helper.make_node("Cast", [made], [f"{name}/typed"], to=kind))
        last = ["Squeeze", [f"{name}/typed", "zero"]] if shape.users == "bare" else ["Identity", [f"{name}/typed"]]
        nodes.append(helper.make_node(*last, [name]))
        outputs.append(helper.make_tensor_value_info(name, kind, None))
    numbers = {"zero": [0], "one": [1], "two": [2], "zero-two": [0, 2], "end": [ITEMS + 1], "k": [TOP_K]}
    numbers |= {"rows": list(range(ITEMS + 1)), "n-one": 1, "n-step": 1}
    dimensions = {"free": ["users"], "one": [1], "bare": []}[shape.users]
    taken = helper.make_tensor_value_info(shape.input_name, shape.input_type, [*dimensions, shape.width or "width"])
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "odd", [taken], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", shape.opset)], ir_version=8)


def expected(rows: npt.NDArray[np.int32], width: int) -> npt.NDArray[np.float32]:
    """The scores of all rows: float32[users, items + 1], one addition at a time."""
    scores = np.zeros((len(rows), ITEMS + 1), np.float32)
    for user, row in enumerate(rows.tolist()):
        padded = ([0] * width + row)[-width:]
        for place, item in enumerate(padded, start=1):
            scores[user, item] += place
    return scores


def adopted(model: onnx.ModelProto, folder: Path, **options: Any) -> Scorer:
    folder.mkdir(exist_ok=True)
    (folder / "mine.onnx").write_bytes(model.SerializeToString())
    adopt(folder / "mine.onnx", NAMES, "mine", folder / "model", TOP_K, **options)
    return Scorer.open(folder / "model")


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, histories=st.lists(st.lists(st.integers(1, ITEMS), max_size=20), min_size=1, max_size=5))
def test_adapted_graph_scores_as_the_graph_itself(shape: Shape, histories: list[list[int]], tmp_path: Path) -> None:
    names = {} if shape.input_name not in ("scores", "mask") else {"inputs": {shape.input_name: "items"}}
    if shape.input_name == shape.output_name:
        shape = shape._replace(output_name="logits")
    scorer = adopted(a_graph(shape), tmp_path, **names)
    rows = np.concatenate([history(*one) for one in histories])
    scores, best = scorer.score(rows)
    wanted = expected(rows, shape.width or 20)[:, 1:]
    assert scores.dtype == np.float32
    assert np.array_equal(scores, -np.sort(-wanted, axis=1)[:, :TOP_K])
    assert np.array_equal(np.take_along_axis(wanted, best - 1, axis=1), scores)


def test_graph_that_meets_the_contract_is_served_byte_for_byte(tmp_path: Path) -> None:
    adopted(plain_model(ITEMS), tmp_path)
    assert (tmp_path / "model" / MODEL_FILE).read_bytes() == (tmp_path / "mine.onnx").read_bytes()


WIDE = 40
"""A vocabulary with room for the numbers of an input in the scores."""


def taking(name: str, dtype: int, width: int | None) -> onnx.ModelProto:
    """A graph whose score of row n is column n - 1 of its input `name`, or column n if it has one for each row."""
    columns = [WIDE] if width is None else [width]
    before = 0 if width == WIDE + 1 else 1
    op = helper.make_node
    nodes = [
        op("Cast", [name], ["numbers"], to=TensorProto.FLOAT),
        op("Unsqueeze", ["numbers", "one"], ["wide"]) if width is None else op("Identity", ["numbers"], ["wide"]),
        op("Pad", ["wide", "pads"], ["scores"]),
    ]
    constants = {"one": [1], "pads": [0, before, 0, WIDE + 1 - before - (1 if width is None else columns[0])]}
    graph = helper.make_graph(
        nodes,
        "reading",
        [helper.make_tensor_value_info(name, dtype, ["users"] if width is None else ["users", width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(value, np.int64), key) for key, value in constants.items()],
    )
    if name not in ("bag", "items_padded_right"):
        graph.input.append(helper.make_tensor_value_info("items", TensorProto.INT32, ["users", 20]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def given_to(model: onnx.ModelProto, folder: Path, rows: Any, weights: Any, **features: Any) -> list[float]:
    """What the graph's input held, for one user."""
    folder.mkdir()
    (folder / "mine.onnx").write_bytes(model.SerializeToString())
    adopt(folder / "mine.onnx", [f"item-{row}" for row in range(1, WIDE + 1)], "mine", folder / "model", WIDE)
    scores, best = Scorer.open(folder / "model").score(rows, weights, features)
    by_row: list[float] = scores[0, np.argsort(best[0])].tolist()
    return by_row


def test_derived_inputs_are_computed_in_the_graph(tmp_path: Path) -> None:
    rows, weights = history(3, 5, 3), (history(3, 5, 3) > 0) * np.float32(0.5)
    found = [
        given_to(taking(name, dtype, width), tmp_path / str(place), rows, weights)
        for place, (name, dtype, width) in enumerate(
            [
                ("bag", TensorProto.FLOAT, WIDE + 1),
                ("mask", TensorProto.BOOL, 20),
                ("history_length", TensorProto.INT64, None),
                ("history_length", TensorProto.INT32, 1),
                ("items_padded_right", TensorProto.INT64, 20),
            ]
        )
    ]
    assert found[0] == [0, 0, 1.0, 0, 0.5, *[0] * 35]
    assert found[1] == [*[0] * 17, 1, 1, 1, *[0] * 20]
    assert found[2] == found[3] == [3, *[0] * 39]
    assert found[4] == [3, 5, 3, *[0] * 37]


def test_profile_inputs_are_passed_on(tmp_path: Path) -> None:
    model = taking("kind_counts", TensorProto.DOUBLE, 9)
    counts = np.arange(9, dtype=np.float32)[None]
    rows = history(3)
    assert given_to(model, tmp_path / "a", rows, None, kind_counts=counts) == [*range(9), *[0] * 31]
    with pytest.raises(ModelError, match=r"takes kind_counts: float32\[users, 9\], and got nothing"):
        given_to(model, tmp_path / "b", rows, None)


def of_opset(version: int) -> onnx.ModelProto:
    model = plain_model(ITEMS)
    model.opset_import[0].version = version
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


def of_one_type(kind: int) -> onnx.ModelProto:
    model = plain_model(ITEMS)
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def with_input(name: str) -> onnx.ModelProto:
    model = plain_model(ITEMS)
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["users"]))
    return model


def with_third_dimension() -> onnx.ModelProto:
    model = plain_model(ITEMS)
    model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 1
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (of_opset(99), "export with opset 17 to 23"),
        (of_opset(11), "export with opset 17 to 23"),
        (plain_model(ITEMS, users=32), "export with a free first dimension (users), or one of 1"),
        (of_one_type(TensorProto.STRING), "take numbers: rows of the vocabulary, not ids or texts"),
        (with_third_dimension(), "remove all dimensions but [users, 20]: reshape within the graph"),
        (with_input("user_id"), "say what it takes, --input user_id=items for instance (one of items, weights, kinds,"),
        (plain_model(ITEMS + 5), "return 13 columns, one for each of the 12 items and row 0, or 12 without row 0"),
    ],
    ids=["too new", "too old", "batch of 32", "texts", "third dimension", "another input", "other items"],
)
def test_other_graphs_are_refused_with_the_one_change_to_make(
    model: onnx.ModelProto, said: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.onnx").write_bytes(model.SerializeToString())
    [wrong] = check(tmp_path / "mine.onnx", NAMES).wrong
    assert said in wrong.note
    with pytest.raises(ModelError) as refused:
        adopted(model, tmp_path)
    assert said in str(refused.value)


def test_wrong_choices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(plain_model(ITEMS).SerializeToString())
    for choices in ({"inputs": {"nope": "items"}}, {"outputs": {"nope": "scores"}}):
        [wrong] = check(tmp_path / "mine.onnx", NAMES, **choices).wrong
        assert (wrong.what.split()[1], wrong.found) == ("nope", "is not in the graph")


def test_file_without_a_vocabulary_is_tried_with_as_many_items_as_it_scores(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(plain_model(ITEMS).SerializeToString())
    checked = check(tmp_path / "mine.onnx", None)
    assert (checked.wrong, checked.findings[-1].verdict) == ([], "ok")
    (tmp_path / "mine.onnx").write_bytes(a_graph(Shape(output="int64")).SerializeToString())
    assert check(tmp_path / "mine.onnx", None).findings[-1].verdict == "skipped"
