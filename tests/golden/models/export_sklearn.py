"""Exports small models from scikit-learn: `python export_sklearn.py FOLDER`; needs scikit-learn and skl2onnx."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor

ITEMS = 30
FOLDER = Path(sys.argv[1])


def main() -> None:
    """Models that take what each user has met, one column for each item, and return a score for each item."""
    random = np.random.default_rng(7)
    met = (random.random((200, ITEMS)) < 0.2).astype(np.float32)
    following = np.roll(met, 1, axis=1)
    for name, model, opset in (
        ("sklearn-ridge", Ridge(), 17),
        ("sklearn-mlp", MLPRegressor(hidden_layer_sizes=(4,), random_state=7, max_iter=50), 21),
    ):
        write(name, to_onnx(model.fit(met, following), met[:1], target_opset=opset))
    classes = KNeighborsClassifier(3).fit(met[:40], random.integers(1, ITEMS + 1, 40))
    write("sklearn-zipmap", to_onnx(classes, met[:1], target_opset=18))


def write(name, model) -> None:
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())


main()
