"""Inference over gRPC: the Open Inference Protocol (KServe, Triton, MLServer, OpenVINO), and TensorFlow Serving.

Each call has a deadline, which gRPC enforces for the whole of it. The channel is kept open, and reconnects by itself.
"""

from collections.abc import Mapping
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt

from adapters.http_client import ANSWER_BYTES_MAX
from adapters.scoring.arrays import DATATYPES, NAME_OF, Arrays, array_of
from adapters.scoring.messages import message
from adapters.scoring.rest import described
from schemas.errors import ModelUnavailable

_OPTIONS: Final = [
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    ("grpc.max_send_message_length", ANSWER_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_TENSORFLOW: Final = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 19: np.float16}
"""TensorFlow's `DataType`."""
_TENSORFLOW_OF: Final = {np.dtype(kind): number for number, kind in _TENSORFLOW.items()}
_VALUES: Final = {1: "float_val", 2: "double_val", 3: "int_val", 9: "int64_val"}
Headers = tuple[tuple[str, str], ...]


def channel_to(target: str, is_secure: bool) -> grpc.Channel:
    """A channel to ``host:port``, with TLS and the system's certificates if `is_secure`."""
    if is_secure:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(), _OPTIONS)
    return grpc.insecure_channel(target, _OPTIONS)


class _Rpc:
    def __init__(self, channel: grpc.Channel, headers: Headers) -> None:
        self._channel = channel
        self._headers = headers

    def _call(self, method: str, request: Any, answer: str, deadline_s: float) -> Any:
        call = self._channel.unary_unary(
            method,
            request_serializer=lambda asked: asked.SerializeToString(),
            response_deserializer=message(answer).FromString,
        )
        try:
            return call(request, timeout=deadline_s, metadata=self._headers)
        except grpc.RpcError as error:
            # The server's text may repeat the rows of a user's history.
            raise ModelUnavailable(f"the server answered {error.code().name} to {method}") from None


class OpenInferenceRpc(_Rpc):
    """The Open Inference Protocol, version 2."""

    def __init__(self, channel: grpc.Channel, model: str, version: str | None, headers: Headers = ()) -> None:
        super().__init__(channel, headers)
        self._model, self._version = model, version or ""

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: list[str], deadline_s: float) -> Arrays:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        request = message("ModelInferRequest")(model_name=self._model, model_version=self._version)
        for name, array in inputs.items():
            request.inputs.add(name=name, datatype=NAME_OF[array.dtype], shape=array.shape)
            request.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
        for name in outputs:
            request.outputs.add(name=name)
        answer = self._call("/inference.GRPCInferenceService/ModelInfer", request, "ModelInferResponse", deadline_s)
        raw = list(answer.raw_output_contents)
        if raw and len(raw) != len(answer.outputs):
            raise ModelUnavailable("the answer has not one content for each output")
        return {
            one.name: _tensor(one, raw[place] if raw else None)
            for place, one in enumerate(answer.outputs)
            if one.name in outputs
        }

    def describe(self, deadline_s: float) -> str:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        request = message("ModelMetadataRequest")(name=self._model, version=self._version)
        method = "/inference.GRPCInferenceService/ModelMetadata"
        answer = self._call(method, request, "ModelMetadataResponse", deadline_s)
        sides = {"inputs": answer.inputs, "outputs": answer.outputs}
        return described(
            {
                side: [{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in tensors]
                for side, tensors in sides.items()
            }
        )


def _tensor(one: Any, raw: bytes | None) -> npt.NDArray[Any]:
    if one.datatype not in DATATYPES or (raw is None and one.datatype not in _CONTENTS):
        raise ModelUnavailable("an output has a type that is not a number")
    dtype = np.dtype(DATATYPES[one.datatype])
    if raw is None:
        return array_of(getattr(one.contents, _CONTENTS[one.datatype]), dtype, one.shape)
    if len(raw) % dtype.itemsize:
        raise ModelUnavailable("an output has a part of a number")
    return array_of(np.frombuffer(raw, dtype), dtype, one.shape)


class TensorFlowRpc(_Rpc):
    """TensorFlow Serving's `Predict`, with the signature `serving_default`."""

    def __init__(self, channel: grpc.Channel, model: str, version: str | None, headers: Headers = ()) -> None:
        super().__init__(channel, headers)
        self._model, self._version = model, version

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: list[str], deadline_s: float) -> Arrays:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        request = message("PredictRequest")(output_filter=outputs)
        request.model_spec.name, request.model_spec.signature_name = self._model, "serving_default"
        if self._version is not None:
            request.model_spec.version.value = int(self._version)
        for name, array in inputs.items():
            tensor = request.inputs.add(key=name).value
            tensor.dtype = _TENSORFLOW_OF[array.dtype]
            tensor.tensor_content = np.ascontiguousarray(array).tobytes()
            for size in array.shape:
                tensor.tensor_shape.dim.add(size=size)
        answer = self._call("/tensorflow.serving.PredictionService/Predict", request, "PredictResponse", deadline_s)
        return {entry.key: _tensorflow_array(entry.value) for entry in answer.outputs if entry.key in outputs}

    def describe(self, deadline_s: float) -> str:
        """See :class:`adapters.scoring.arrays.InferenceClient`. TF Serving describes models in a form of its own."""
        return "TensorFlow Serving over gRPC: only a trial tells whether the names are right"


def _tensorflow_array(tensor: Any) -> npt.NDArray[Any]:
    if tensor.dtype not in _TENSORFLOW:
        raise ModelUnavailable("an output has a type that is not a number")
    dtype, shape = np.dtype(_TENSORFLOW[tensor.dtype]), [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.tensor_content or tensor.dtype not in _VALUES:
        if len(tensor.tensor_content) % dtype.itemsize:
            raise ModelUnavailable("an output has a part of a number")
        return array_of(np.frombuffer(tensor.tensor_content, dtype), dtype, shape)
    return array_of(getattr(tensor, _VALUES[tensor.dtype]), dtype, shape)
