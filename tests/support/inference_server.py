"""An inference server in a few lines, written from the protocols' specifications, that can fail in the usual ways.

REST and gRPC of the Open Inference Protocol and of TensorFlow Serving, and TorchServe with the handler that
docs/ml/remote.md shows. The model is :class:`tests.support.fakes.FixedModel`.
"""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np

from adapters.scoring.messages import message
from tests.support.fakes import FixedModel

ITEMS = [f"item-{row}" for row in range(1, 13)]
REST = ("open-inference-rest", "tensorflow-rest", "torchserve-rest")
RPC = ("open-inference-grpc", "tensorflow-grpc")
FAULTS = ("slow", "trickle", "half", "reset", "500", "text", "shape", "users", "missing")
"""Of these, gRPC servers know `slow`, `500`, `shape`, `users` and `missing`."""


USELESS = {"all nan": float("nan"), "most nan": float("nan"), "all null": None, "overflow": 1e39, "underflow": -1e39}
"""What servers of REST put in place of scores; for `most nan`, the first user has scores."""


class ServedModel:
    """Answers in plain scores, or ranked; `fault` may be set at any time. `bodies` are what was received."""

    def __init__(self) -> None:
        self.fault = ""
        self.ranked = False
        self.bodies: list[bytes] = []
        self.connections = 0
        self.calls = 0
        self.go_on = threading.Event()
        self._model = FixedModel(ITEMS, 5)

    def outputs(self, items: Any, weights: Any) -> dict[str, Any]:
        """The outputs by name, wrong if there is a fault."""
        self.calls += 1
        rows = np.array(items, np.int32)
        scores, ids = self._model.score(rows, np.array(weights, np.float32) if weights else (rows > 0) * 1.0)
        if self.fault == "nan":
            scores[0, 0] = np.nan
        if self.fault == "rows":
            ids[0, 0] = 99
        if self.fault == "users":
            scores, ids = scores[:-1], ids[:-1]
        if self.ranked:
            found = {"scores": scores, "ids": ids}
        else:
            plain = np.full((len(rows), len(ITEMS) + 1), -9.0, np.float32)
            np.put_along_axis(plain, ids, scores, axis=1)
            found = {"scores": plain if self.fault != "shape" else plain[:, :-3]}
        if self.fault in USELESS:
            useless = found["scores"].astype(object)
            useless[int(self.fault == "most nan") :] = USELESS[self.fault]
            found["scores"] = useless
        if self.fault == "missing":
            del found["scores"]
        return {name: np.array(value) for name, value in found.items()}


class _RestHandler(BaseHTTPRequestHandler):
    model: ServedModel
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.model.connections += 1

    def do_GET(self) -> None:
        tensors = [{"name": "items", "datatype": "INT32", "shape": [-1, 20]}]
        signature = {"inputs": {"items": {}}, "outputs": {"scores": {}}}
        of_tensorflow = {"signature_def": {"signature_def": {"serving_default": signature}}}
        self.write(json.dumps({"name": "m", "inputs": tensors, "outputs": [], "metadata": of_tensorflow}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.model.bodies.append(body)
        if self.model.fault == "slow":
            self.model.go_on.wait(30)
        if self.model.fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        self.write(answer_to(self.model, self.path, json.loads(body)), 500 if self.model.fault == "500" else 200)

    def write(self, content: bytes, status: int = 200) -> None:
        if self.model.fault == "text":
            content = b"<html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.model.fault == "trickle":
            for byte in content:
                self.wfile.write(bytes([byte]))
                if self.model.go_on.wait(0.02):
                    return
        elif self.model.fault == "half":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def rest_server(model: ServedModel) -> Iterator[str]:
    """The URL of a server that speaks the three protocols over REST."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_RestHandler,), {"model": model}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        model.go_on.set()
        server.shutdown()
        server.server_close()


def answer_to(model: ServedModel, path: str, asked: Any) -> bytes:
    """The answer of the protocol whose path it is."""
    if path.startswith("/v2/models/m") and path.endswith("/infer"):
        given = {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in asked["inputs"]}
        found = model.outputs(given["items"], given.get("weights", np.array([])).tolist())
        types = {"float32": "FP32", "object": "FP32", "int64": "INT64"}
        outputs = [
            {"name": name, "datatype": types[str(one.dtype)], "shape": list(one.shape), "data": one.ravel().tolist()}
            for name, one in found.items()
        ]
        return json.dumps({"model_name": "m", "outputs": outputs}).encode()
    if path.startswith("/v1/models/m") and path.endswith(":predict"):
        found = model.outputs(asked["inputs"]["items"], asked["inputs"].get("weights"))
        named = {name: one.tolist() for name, one in found.items()}
        return json.dumps({"outputs": named["scores"] if list(named) == ["scores"] else named}).encode()
    assert path.startswith("/predictions/m"), path
    columns = {name: [one[name] for one in asked["instances"]] for name in asked["instances"][0]}
    found = model.outputs(columns["items"], columns.get("weights"))
    users = len(next(iter(found.values()), []))
    predictions = [{name: one[user].tolist() for name, one in found.items()} for user in range(users)]
    return json.dumps({"predictions": predictions}).encode()


class _Rpc:
    """The calls of both protocols."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def _failing(self, context: grpc.ServicerContext) -> None:
        if self._model.fault == "slow":
            self._model.go_on.wait(30)
        if self._model.fault == "500":
            context.abort(grpc.StatusCode.INTERNAL, "rows 1, 2, 3 cannot be scored")

    def infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._model.bodies.append(request.SerializeToString())
        self._failing(context)
        given = {
            one.name: np.frombuffer(raw, {"INT32": "i4", "INT64": "i8", "FP32": "f4"}[one.datatype]).reshape(one.shape)
            for one, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        found = self._model.outputs(given["items"], given.get("weights", np.array([])).tolist())
        answer = message("ModelInferResponse")()
        for name, one in found.items():
            tensor = answer.outputs.add(name=name, datatype="FP32" if name == "scores" else "INT64", shape=one.shape)
            if self._model.ranked:  # as MLServer: typed contents; else as Triton: raw
                (tensor.contents.fp32_contents if name == "scores" else tensor.contents.int64_contents).extend(
                    one.ravel().tolist()
                )
            else:
                answer.raw_output_contents.append(one.tobytes())
        return answer

    def metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        answer = message("ModelMetadataResponse")()
        answer.inputs.add(name="items", datatype="INT32", shape=[-1, 20])
        return answer

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._model.bodies.append(request.SerializeToString())
        self._failing(context)
        given = {
            one.key: np.frombuffer(one.value.tensor_content, {3: "i4", 9: "i8", 1: "f4"}[one.value.dtype]).reshape(
                [size.size for size in one.value.tensor_shape.dim]
            )
            for one in request.inputs
        }
        found = self._model.outputs(given["items"], given.get("weights", np.array([])).tolist())
        answer = message("PredictResponse")()
        for name, one in found.items():
            tensor = answer.outputs.add(key=name).value
            tensor.dtype = 1 if name == "scores" else 9
            for size in one.shape:
                tensor.tensor_shape.dim.add(size=size)
            if name == "scores":
                tensor.tensor_content = one.tobytes()
            else:
                tensor.int64_val.extend(one.ravel().tolist())
        return answer


def _handler(call: Any, request: str) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        call, message(request).FromString, lambda answer: answer.SerializeToString()
    )


@contextmanager
def rpc_server(model: ServedModel) -> Iterator[str]:
    """The URL of a server that speaks both protocols over gRPC."""
    rpc, server = _Rpc(model), grpc.server(ThreadPoolExecutor(4))
    of_inference = {
        "ModelInfer": _handler(rpc.infer, "ModelInferRequest"),
        "ModelMetadata": _handler(rpc.metadata, "ModelMetadataRequest"),
    }
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("inference.GRPCInferenceService", of_inference),
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService", {"Predict": _handler(rpc.predict, "PredictRequest")}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        model.go_on.set()
        server.stop(None)
