"""Exports small models from Keras: `python export_keras.py FOLDER`; needs tensorflow-cpu and tf2onnx."""

import sys
from pathlib import Path

import keras
import tensorflow as tf
import tf2onnx

ITEMS, SIZE = 30, 4
FOLDER = Path(sys.argv[1])


def main() -> None:
    keras.utils.set_random_seed(7)
    write("keras-gru", recurrent(20), tf.int64, None, opset=17)
    write("keras-narrow-batch-of-one", recurrent(8), tf.int32, 1, opset=18)


def recurrent(width: int) -> keras.Model:
    """As GRU4Rec."""
    items = keras.Input((width,), dtype="int32", name="history")
    embedded = keras.layers.Embedding(ITEMS + 1, SIZE)(items)
    state = keras.layers.GRU(SIZE, unroll=False)(embedded)
    return keras.Model(items, keras.layers.Dense(ITEMS + 1)(state))


def write(name: str, model: keras.Model, dtype: tf.DType, users: int | None, opset: int) -> None:
    width = model.inputs[0].shape[1]
    called = tf.function(lambda history: {"output_0": model(history)})
    signature = [tf.TensorSpec((users, width), dtype, name="history")]
    tf2onnx.convert.from_function(called, signature, opset=opset, output_path=str(FOLDER / f"{name}.onnx"))


main()
