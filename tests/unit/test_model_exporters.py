"""Models that exporters wrote, in tests/golden/models beside the scripts that made them: adopted, or refused."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from freshet.cli import main as freshet
from models.check import check
from models.scorer import Scorer
from tests.support.models import history

EXPORTED = Path(__file__).parents[1] / "golden" / "models"
ITEMS = [f"item-{row}" for row in range(1, 31)]
ROWS = np.concatenate([history(3, 7, 9), history(30, 1)])
FITS = sorted(path.stem for path in EXPORTED.glob("*.onnx") if path.stem not in ("sklearn-mlp", "sklearn-zipmap"))
PADDED = np.pad(ROWS, ((0, 0), (30, 0))).astype(np.int64)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.txt"
    path.write_text("".join(f"{item}\n" for item in ITEMS))
    return path


@pytest.mark.parametrize("name", FITS)
def test_exported_model_is_adopted(name: str, tmp_path: Path, items: Path) -> None:
    words = ["model", "adopt", str(EXPORTED / f"{name}.onnx"), "--items", str(items), "--name", name]
    assert freshet.run([*words, "--out", str(tmp_path / "model")]) == 0
    scores, _ = Scorer.open(tmp_path / "model").score(ROWS)
    assert np.isfinite(scores).all()
    assert not np.array_equal(scores[0], scores[1])


@pytest.mark.parametrize(
    ("name", "fed", "column"),
    [
        ("torch-int64-wide", PADDED, 1),
        ("torch-fp16", PADDED, 1),
        ("torch-batch-of-one", PADDED, 1),
        ("torch-no-padding-row", PADDED, 0),
        ("keras-gru", ROWS.astype(np.int64), 1),
        ("keras-narrow-batch-of-one", ROWS[:, -8:], 1),
    ],
)
def test_adopted_model_scores_as_the_export(
    name: str, fed: np.ndarray, column: int, tmp_path: Path, items: Path
) -> None:
    words = ["model", "adopt", str(EXPORTED / f"{name}.onnx"), "--items", str(items), "--name", name]
    assert freshet.run([*words, "--out", str(tmp_path / "model")]) == 0
    scores, best = Scorer.open(tmp_path / "model").score(ROWS)
    session = ort.InferenceSession(str(EXPORTED / f"{name}.onnx"))
    [taken] = session.get_inputs()
    for user in range(len(ROWS)):
        alone = session.run(None, {taken.name: fed[user : user + 1]})[0][0, column:].astype(np.float32)
        assert np.allclose(alone[best[user] - 1], scores[user], rtol=1e-3, atol=1e-3 if "16" in name else 1e-6)
        assert np.isclose(alone.max(), scores[user, 0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sklearn-zipmap", "skl2onnx does with options={'zipmap': False}"),
        ("sklearn-mlp", r"for 3 users it returned variable \[90, 1\]: the first dimension must be the users"),
    ],
)
def test_other_exports_are_refused_with_the_change_to_make(name: str, said: str) -> None:
    [wrong] = check(EXPORTED / f"{name}.onnx", ITEMS).wrong
    assert said.replace("\\", "") in wrong.line()
    assert "make model" not in wrong.line()


def test_check_prints_the_contract_beside_the_file(items: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert freshet.run(["model", "check", str(EXPORTED / "torch-fp16.onnx"), "--items", str(items)]) == 0
    printed = capsys.readouterr().out
    assert "✓ input input_ids: int64[users, 50]: takes items, cast to int64, padded on the left to 50\n" in printed
    assert "✓ output logits: float16[users, 31]: gives scores, cast to float32\n" in printed
    assert freshet.run(["model", "check", str(EXPORTED / "sklearn-zipmap.onnx"), "--json"]) == 1
    assert '"fits": false' in capsys.readouterr().out
