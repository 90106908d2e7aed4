"""Writes a request and answers as TensorFlow's own messages: `python encode_tensorflow.py FOLDER`.

Needs tensorflow-cpu, and tensorflow-serving-api without its dependencies.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

FOLDER = Path(sys.argv[1])


def main() -> None:
    request = predict_pb2.PredictRequest(output_filter=["scores", "ids"])
    request.model_spec.name, request.model_spec.signature_name = "shop", "serving_default"
    request.model_spec.version.value = 7
    request.inputs["items"].CopyFrom(tf.make_tensor_proto(np.arange(40, dtype=np.int32).reshape(2, 20)))
    request.inputs["weights"].CopyFrom(tf.make_tensor_proto(np.full((2, 20), 0.5, np.float32)))
    write("predict-request", request)
    scores, ids = np.array([[2.5, 1.0], [3.0, -1.5]], np.float32), np.array([[4, 2], [1, 3]])
    answer = predict_pb2.PredictResponse()
    answer.model_spec.name = "shop"
    answer.outputs["scores"].CopyFrom(tf.make_tensor_proto(scores))
    answer.outputs["ids"].CopyFrom(tf.make_tensor_proto(ids))
    write("predict-answer-packed", answer)
    for name, values in (("scores", scores), ("ids", ids)):
        tensor = answer.outputs[name]
        (tensor.float_val if name == "scores" else tensor.int64_val).extend(values.ravel().tolist())
        tensor.ClearField("tensor_content")
    write("predict-answer-values", answer)


def write(name, message) -> None:
    (FOLDER / f"{name}.bin").write_bytes(message.SerializeToString(deterministic=True))


main()
