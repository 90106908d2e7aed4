"""The settings of a model on an inference server."""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from adapters.scoring.opening import Protocol

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TENSOR_MAX: Final = 128


class RemoteModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model on an inference server. If it does not answer, the model of `[model]` makes the lists."""

    url: str | None = None
    """The server: `http(s)://host:port`, or `grpc(s)://host:port` for the protocols over gRPC. Without one, no server
    is asked.
    """
    protocol: Protocol = "open-inference-grpc"
    """What the server speaks: the Open Inference Protocol (KServe, Triton, MLServer, OpenVINO), that of TensorFlow
    Serving, or that of TorchServe, which is in limited maintenance.
    """
    model: str | None = None
    """The name of the model on the server."""
    version: str | None = None
    """Its version. By default the server chooses one."""
    items: str | None = None
    """The file with the vocabulary, one item id per line, at the same path on every worker: line n is row n of the
    model.
    """
    deadline_ms: Annotated[int, Meta(ge=1, le=5_000)] = 200
    """How long one call may take, from connecting to the last byte. There is one call for all users of an element."""
    pause_ms: Annotated[int, Meta(ge=100)] = 5_000
    """After a call without a usable answer, how long the server is not asked again."""
    top_k: Annotated[int, Meta(ge=1, le=1_000)] = 50
    """How many rows to rank if the model returns plain scores."""
    items_input: Annotated[str, Meta(min_length=1, max_length=_TENSOR_MAX)] = "items"
    """The name of the input with the rows of the recent items, [users, 20]."""
    items_type: Literal["int32", "int64"] = "int32"
    """The type of that input."""
    weights_input: Annotated[str, Meta(min_length=1, max_length=_TENSOR_MAX)] | None = None
    """The name of the input with a weight for each of these items, float32[users, 20], if the model takes it."""
    scores_output: Annotated[str, Meta(min_length=1, max_length=_TENSOR_MAX)] = "scores"
    """The name of the output with the scores."""
    ids_output: Annotated[str, Meta(min_length=1, max_length=_TENSOR_MAX)] | None = None
    """The name of the output with the ranked rows, if the model ranks."""
    token_variable: str | None = None
    """The environment variable with a token that is sent to the server (`Authorization: Bearer`), if it wants one."""

    def complaint(self) -> str | None:
        """What is wrong, if anything."""
        if self.url is None:
            given = [name for name in self.__struct_fields__ if getattr(self, name) != getattr(NO_SERVER, name)]
            return f"remote.{given[0]} needs remote.url, the address of the server" if given else None
        if self.model is None or not _NAME.fullmatch(self.model):
            return "remote.model must name the model on the server: 1 to 64 letters, digits, '.', '_' and '-'"
        if self.version is not None and not _NAME.fullmatch(self.version):
            return "remote.version must be 1 to 64 letters, digits, '.', '_' and '-'"
        if self.items is None:
            return "remote.items must name the file of the vocabulary, one item id per line"
        if self.token_variable is not None and not _VARIABLE.fullmatch(self.token_variable):
            return "remote.token_variable must be the name of an environment variable: letters, digits and underscores"
        return None

    def name(self) -> str:
        """The model in lists."""
        return f"{self.model}" if self.version is None else f"{self.model}@{self.version}"


NO_SERVER: Final = RemoteModelSettings()
