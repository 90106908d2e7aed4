"""What quantising costs: each form of a model beside FP32, in the manifest, and refused above a set loss."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.train import train_and_export
from freshet.cli.main import run
from models.adopt import adopt
from models.interactions import Columns, Interactions, read
from models.manifest import FP32_FILE, MANIFEST_FILE, MODEL_FILE, load
from models.scorer import Scorer
from models.transitions import TrainingSettings
from tests.support.models import BEGINNING, edit_manifest

ITEMS, WIDTH = 60, 16


def clicks(folder: Path, users: int = 80) -> tuple[Path, Interactions]:
    """Users who take items in a circle, an hour apart."""
    steps = [(step, user) for step in range(12) for user in range(users)]
    rows = [(BEGINNING + 3_600_000 * step + user, user, (7 * user + step) % ITEMS) for step, user in steps]
    path = folder / "clicks.csv"
    path.write_text("user_id,item_id,type,ts\n" + "".join(f"{u},item-{i:02},view,{ts}\n" for ts, u, i in sorted(rows)))
    return path, read(path, Columns())


def embedding_model(noise: float = 0.0) -> bytes:
    """Scores by a matrix product, as other frameworks export it: the next item of the circle is the best."""
    random = np.random.default_rng(1)
    inner = random.normal(size=(ITEMS + 1, WIDTH)).astype(np.float32) / np.sqrt(WIDTH)
    outer = np.roll(inner, 1, axis=0).T + noise * random.normal(size=(WIDTH, ITEMS + 1)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["inner", "items"], ["history"], axis=0),
        helper.make_node("Gather", ["history", "last"], ["newest"], axis=1),
        helper.make_node("MatMul", ["newest", "outer"], ["plain"]),
        helper.make_node("Add", ["plain", "no padding"], ["scores"]),
    ]
    constants = {
        "inner": inner.astype(np.float32),
        "outer": outer.astype(np.float32),
        "last": np.array(19, np.int64),
        "no padding": np.array([-1e9] + [0.0] * ITEMS, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("items", TensorProto.INT32, ["users", 20])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["users", ITEMS + 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return model.SerializeToString()  # type: ignore[no-any-return]


def adopted(folder: Path) -> Path:
    (folder / "mine.onnx").write_bytes(embedding_model())
    adopt(folder / "mine.onnx", [f"item-{row:02}" for row in range(ITEMS)], "mine-1", folder / "model", 50)
    return folder / "model"


def test_all_forms_of_a_model_of_matrix_products_are_measured_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, (path, _) = adopted(tmp_path), clicks(tmp_path)
    assert run(["model", "quantise", str(directory), str(path), "--json", "--loss-max", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["forms"]) == {"fp32", "fp16", "int8-dynamic", "int8-static"}
    assert told["forms"]["fp32"]["loss"] == 0 and told["forms"]["fp32"]["ndcg10"] > 0.5
    for form in told["forms"].values():
        assert form["loss_low"] <= form["loss"] <= form["loss_high"] and form["questions"] > 50
        assert form["us_per_list"] > 0
    manifest = load(directory)
    assert (manifest.name, manifest.quantisation) == ("mine-1", "fp32")
    assert set(manifest.quantisation_report) == set(told["forms"])


def test_form_that_is_chosen_is_served_under_another_name(tmp_path: Path) -> None:
    directory, (path, _) = adopted(tmp_path), clicks(tmp_path)
    assert run(["model", "quantise", str(directory), str(path), "--form", "fp16", "--loss-max", "0.2"]) == 0
    manifest = Scorer.open(directory).manifest
    assert manifest.quantisation == "fp16" and manifest.name.startswith("mine-1-")
    assert (directory / FP32_FILE).exists(), "another form can be made from it"
    assert run(["model", "quantise", str(directory), str(path), "--form", "fp32"]) == 0
    assert load(directory).quantisation == "fp32"


def test_form_that_loses_too_much_is_refused_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, (path, _) = adopted(tmp_path), clicks(tmp_path)
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    monkeypatch.setattr("models.quantised_forms._MADE", {"fp32": lambda graph, feed: graph, "fp16": _spoiled})
    monkeypatch.setattr("evaluation.quantisation.FORMS", ("fp32", "fp16"))
    assert run(["model", "quantise", str(directory), str(path), "--form", "fp16"]) == 2
    told = capsys.readouterr().err
    assert "of the nDCG@10 of fp32, and at most 1.00% is allowed" in told and "fp16 loses" in told
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


def _spoiled(graph: bytes, feed: object) -> bytes:
    return embedding_model(noise=3.0)


def test_built_in_model_is_measured_as_it_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, stream = clicks(tmp_path)
    train_and_export(stream, tmp_path / "model", TrainingSettings(item_users_min=1, popular_users_min=1))
    assert run(["model", "quantise", str(tmp_path / "model"), str(path)]) == 0
    told = capsys.readouterr().out
    assert "int8-weights" in told and "served: int8-weights" in told
    report = load(tmp_path / "model").quantisation_report
    assert report["int8-weights"].size_bytes < report["fp32"].size_bytes


def test_manifest_of_an_older_release_has_no_report(tmp_path: Path) -> None:
    directory = adopted(tmp_path)
    manifest = json.loads((directory / MANIFEST_FILE).read_text())
    del manifest["quantisation_report"]
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))
    assert load(directory).quantisation_report == {}


def test_quantised_model_without_its_fp32_graph_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, (path, _) = adopted(tmp_path), clicks(tmp_path)
    edit_manifest(directory, quantisation="int8-dynamic")
    assert run(["model", "quantise", str(directory), str(path)]) == 2
    assert f"has no {FP32_FILE}, and {MODEL_FILE} is quantised already" in capsys.readouterr().err
