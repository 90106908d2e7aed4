"""Opens the client for an inference server by its protocol."""

from collections.abc import Callable
from typing import Final, Literal

from adapters.hosts import is_host
from adapters.http_client import KeptConnection
from adapters.scoring.arrays import InferenceClient
from adapters.scoring.rest import OpenInferenceRest, TensorFlowRest, TorchServeRest
from schemas.errors import SettingsError

Protocol = Literal[
    "open-inference-rest", "open-inference-grpc", "tensorflow-rest", "tensorflow-grpc", "torchserve-rest"
]
_REST: Final[dict[str, Callable[[KeptConnection, str, str | None], InferenceClient]]] = {
    "open-inference-rest": OpenInferenceRest,
    "tensorflow-rest": TensorFlowRest,
    "torchserve-rest": TorchServeRest,
}
_SECURE: Final = {"grpc": False, "grpcs": True}


def open_client(
    url: str, protocol: Protocol, model: str, version: str | None = None, token: str | None = None
) -> InferenceClient:
    """The client for `model` of the server at `url`; connects at the first call. `token` is sent as a bearer token.

    Raises :class:`SettingsError` if the URL does not fit the protocol.
    """
    if protocol in _REST:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return _REST[protocol](KeptConnection(url, headers), model, version)
    from adapters.scoring.rpc import OpenInferenceRpc, TensorFlowRpc, channel_to

    scheme, _, target = url.partition("://")
    host, _, port = target.rpartition(":")
    if scheme not in _SECURE or not is_host(host) or not port.isdigit():
        raise SettingsError("the address of a server that speaks gRPC is grpc(s)://host:port")
    if protocol == "tensorflow-grpc" and version is not None and not version.isdigit():
        raise SettingsError("a version of TensorFlow Serving is a number")
    kind = OpenInferenceRpc if protocol == "open-inference-grpc" else TensorFlowRpc
    own = () if token is None else (("authorization", f"Bearer {token}"),)
    return kind(channel_to(target, _SECURE[scheme]), model, version, own)
