"""Models from elsewhere: those that run are adopted, the others are refused with a reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from freshet.cli import main as freshet
from models.adopt import adopt
from models.graph import fp32_model
from models.random_model import random_transitions
from models.scorer import Scorer
from schemas.errors import ModelError
from tests.support.documented import blocks
from tests.support.models import BEGINNING, DAY, history, plain_model

ITEMS = [f"item-{row}" for row in range(1, 31)]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Save a graph and adopt it by command; returns exit code and output."""

    def command(model: onnx.ModelProto | bytes, items: list[str] = ITEMS, *more: str) -> tuple[int, str]:
        content = model if isinstance(model, bytes) else model.SerializeToString()
        (tmp_path / "mine.onnx").write_bytes(content)
        (tmp_path / "items").write_text("".join(f"{item}\n" for item in items))
        words = ["model", "adopt", str(tmp_path / "mine.onnx"), "--items", str(tmp_path / "items"), "--name", "mine-1"]
        code = freshet.run([*words, "--out", str(tmp_path / "model"), *more])
        return code, capsys.readouterr().err

    return command


def test_plain_scores_are_ranked_by_the_scorer(tmp_path: Path, run: Callable[..., tuple[int, str]]) -> None:
    assert run(plain_model(30), ITEMS, "--top-k", "5")[0] == 0
    scorer = Scorer.open(tmp_path / "model")
    scores, rows = scorer.score(history(7, 9, 9))
    assert (rows.shape, rows[0, :2].tolist(), scores[0, :2].tolist()) == ((1, 5), [9, 7], [2.0, 1.0])


def test_ranking_graph_keeps_its_length(tmp_path: Path, run: Callable[..., tuple[int, str]]) -> None:
    assert run(fp32_model(random_transitions(30, 4, seed=1), 12))[0] == 0
    scorer = Scorer.open(tmp_path / "model")
    assert (scorer.manifest.top_k, scorer.manifest.name, scorer.items[1]) == (12, "mine-1", "item-1")
    assert np.isfinite(scorer.score(history(3))[0]).all()


def with_another_input() -> onnx.ModelProto:
    model = plain_model(30)
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, ["users", 1]))
    return model


@pytest.mark.parametrize(
    ("model", "items", "said"),
    [
        (b"no graph", ITEMS, "mine.onnx is not an ONNX file"),
        (
            plain_model(30),
            ITEMS[:-1],
            "output scores float32[users, 31]: return 30 columns, one for each of the 29 items and row 0, or 29",
        ),
        (plain_model(30), [*ITEMS[:-1], "item-1"], "item id 'item-1' occurs twice"),
        (with_another_input(), ITEMS, "input age float32[users, 1]: say what it takes, --input age=items"),
    ],
    ids=["no graph", "an item too few", "an item twice", "another input"],
)
def test_unrunnable_model_is_refused_and_nothing_written(
    model: onnx.ModelProto | bytes, items: list[str], said: str, tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    code, printed = run(model, items)
    assert code == 2
    assert said in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items", "mine.onnx"]


def shopping(path: Path, days: int = 40) -> Path:
    """A file of users who each go round the catalogue, a step a day."""
    rows = [
        {
            "user_id": f"u{user}",
            "item_id": ITEMS[(user + day) % 30],
            "type": "click",
            "ts": BEGINNING + day * DAY + user,
        }
        for day in range(days)
        for user in range(20)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_adopted_model_is_measured_by_the_job_s_rules(tmp_path: Path, run: Callable[..., tuple[int, str]]) -> None:
    later = shopping(tmp_path / "later.jsonl")
    code, said = run(fp32_model(random_transitions(30, 4, seed=1), 12), ITEMS, "--evaluate", str(later))
    assert code == 0, said
    metrics = Scorer.open(tmp_path / "model").manifest.metrics
    assert [name for name in metrics if name.startswith("model")] == ["model", "model, new items"]
    assert len(metrics) == 4, "with the best simple method of each"
    assert all(0 <= row["ndcg@10"] <= 1 for row in metrics.values())


def test_file_of_other_items_measures_nothing(tmp_path: Path, run: Callable[..., tuple[int, str]]) -> None:
    later = shopping(tmp_path / "later.jsonl")
    code, said = run(plain_model(30), [f"thing-{row}" for row in range(30)], "--evaluate", str(later))
    assert code == 2
    assert "the model knows none of the file's 30 items, such as 'item-1': name the column of the items" in said
    assert not (tmp_path / "model").exists()


def as_windows_writes(items: list[str]) -> str:
    return "".join(f"{item}\r\n" for item in items)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_windows_line_endings_in_items_are_handled(tmp_path: Path, encoding: str) -> None:
    names = ["café", *ITEMS[1:]]
    (tmp_path / "my model é.onnx").write_bytes(plain_model(30).SerializeToString())
    (tmp_path / "items.txt").write_bytes(as_windows_writes(names).encode(encoding))
    words = [
        "model",
        "adopt",
        str(tmp_path / "my model é.onnx"),
        "--items",
        str(tmp_path / "items.txt"),
        "--name",
        "mine",
    ]
    assert freshet.run([*words, "--out", str(tmp_path / "the model")]) == 0
    assert Scorer.open(tmp_path / "the model").items == ["", *names]


def test_items_in_unknown_encoding_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.onnx").write_bytes(plain_model(30).SerializeToString())
    (tmp_path / "items.txt").write_bytes(as_windows_writes(["café", *ITEMS[1:]]).encode("cp1252"))
    words = ["model", "adopt", str(tmp_path / "mine.onnx"), "--items", str(tmp_path / "items.txt"), "--name", "mine"]
    assert freshet.run([*words, "--out", str(tmp_path / "model")]) == 2
    assert "items.txt is not UTF-8: save it as UTF-8" in capsys.readouterr().err


def saved_with_data(path: Path) -> onnx.ModelProto:
    """As PyTorch's exporter does it: the weights are in `<name>.onnx.data`."""
    model = fp32_model(random_transitions(30, 4, seed=1), 12)
    path.parent.mkdir()
    onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    assert path.with_name(f"{path.name}.data").stat().st_size > 0
    return fp32_model(random_transitions(30, 4, seed=1), 12)


def test_external_weights_are_embedded(tmp_path: Path) -> None:
    path = tmp_path / "my export (1)" / "mine.onnx"
    model = saved_with_data(path)
    adopt(path, ITEMS, "mine", tmp_path / "model")
    shutil.rmtree(path.parent)
    whole = tmp_path / "whole.onnx"
    whole.write_bytes(model.SerializeToString())
    adopt(whole, ITEMS, "whole", tmp_path / "expected")
    (scores, rows), (expected, expected_rows) = (
        Scorer.open(tmp_path / name).score(history(3, 7)) for name in ("model", "expected")
    )
    assert np.array_equal(scores, expected)
    assert np.array_equal(rows, expected_rows)


def test_missing_external_weights_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "export" / "mine.onnx"
    saved_with_data(path)
    path.with_name("mine.onnx.data").rename(tmp_path / "weights")
    with pytest.raises(ModelError, match=r"keeps weights in another file, .*put it beside the model"):
        adopt(path, ITEMS, "mine", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_refused_model_leaves_the_existing_one(tmp_path: Path, run: Callable[..., tuple[int, str]]) -> None:
    first = tmp_path / "first.onnx"
    first.write_bytes(plain_model(30).SerializeToString())
    adopt(first, ITEMS, "first", tmp_path / "model")
    assert run(b"no graph")[0] == 2
    assert Scorer.open(tmp_path / "model").manifest.name == "first"


def test_documented_pytorch_export_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed: the documented export was not run")
    [example] = [text for page, text in blocks("py") if page.name == "adopt.md"]
    monkeypatch.chdir(tmp_path)
    Path("items.txt").write_text("".join(f"{item}\n" for item in ITEMS))
    exec(compile(example, "the documentation", "exec"), {"__name__": "example"})
    adopt(Path("mine.onnx"), ITEMS, "mine-1", Path("model"))
    assert Scorer.open(Path("model")).score(history(7))[1].shape == (1, 30)
