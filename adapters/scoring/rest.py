"""Inference over REST: the Open Inference Protocol (KServe, Triton, MLServer, OpenVINO), TF Serving, and TorchServe.

https://github.com/kserve/open-inference-protocol, https://www.tensorflow.org/tfx/serving/api_rest and
https://pytorch.org/serve/inference_api.html. TorchServe has no protocol of its own for tensors, and is in limited
maintenance: see docs/ml/remote.md for the handler that the client expects.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec
import numpy.typing as npt

from adapters.http_client import KeptConnection
from adapters.scoring.arrays import DATATYPES, NAME_OF, Arrays, array_of, guessed, parsed
from schemas.errors import HttpUnanswered, ModelUnavailable

ERROR_MAX: Final = 200


class _Rest:
    """A model at a path below the server's URL."""

    def __init__(self, connection: KeptConnection, path: str) -> None:
        self._connection = connection
        self._path = path

    def _ask(self, method: str, path: str, body: Any, deadline_s: float) -> Any:
        encoded = None if body is None else msgspec.json.encode(body)
        try:
            answer = self._connection.ask(method, path, encoded, deadline_s)
        except HttpUnanswered as error:
            raise ModelUnavailable(f"the server did not answer ({error})") from None
        if answer.status != HTTPStatus.OK:
            # The server's text may repeat the rows of a user's history.
            raise ModelUnavailable(f"the server answered {answer.status} to {method} {path}")
        return parsed(answer.body)


class OpenInferenceRest(_Rest):
    """The Open Inference Protocol, version 2."""

    def __init__(self, connection: KeptConnection, model: str, version: str | None) -> None:
        of_version = "" if version is None else f"/versions/{quote(version, safe='')}"
        super().__init__(connection, f"/v2/models/{quote(model, safe='')}{of_version}")

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: list[str], deadline_s: float) -> Arrays:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        tensors = [
            {"name": name, "shape": array.shape, "datatype": NAME_OF[array.dtype], "data": array.ravel().tolist()}
            for name, array in inputs.items()
        ]
        asked = {"inputs": tensors, "outputs": [{"name": name} for name in outputs]}
        answer = self._ask("POST", f"{self._path}/infer", asked, deadline_s)
        try:
            return {
                one["name"]: array_of(one["data"], DATATYPES[one["datatype"]], one["shape"])
                for one in answer["outputs"]
                if one["name"] in outputs
            }
        except (KeyError, TypeError):
            raise ModelUnavailable("the answer is not one of the Open Inference Protocol") from None

    def describe(self, deadline_s: float) -> str:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        try:
            return described(self._ask("GET", self._path, None, deadline_s))
        except (KeyError, TypeError):
            raise ModelUnavailable("the model's metadata is not that of the Open Inference Protocol") from None


def described(metadata: Any) -> str:
    """Inputs and outputs in metadata of the Open Inference Protocol, in words."""
    sides = {}
    for side in ("inputs", "outputs"):
        tensors = [f"{one['name']} {one['datatype']}{list(one['shape'])}" for one in metadata.get(side) or ()]
        sides[side] = ", ".join(tensors) or "not said"
    return f"inputs {sides['inputs']}; outputs {sides['outputs']}"


class TensorFlowRest(_Rest):
    """TensorFlow Serving, in its columnar form, with the signature `serving_default`."""

    def __init__(self, connection: KeptConnection, model: str, version: str | None) -> None:
        of_version = "" if version is None else f"/versions/{quote(version, safe='')}"
        super().__init__(connection, f"/v1/models/{quote(model, safe='')}{of_version}")

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: list[str], deadline_s: float) -> Arrays:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        asked = {"inputs": {name: array.tolist() for name, array in inputs.items()}}
        answer = self._ask("POST", f"{self._path}:predict", asked, deadline_s)
        found = answer.get("outputs") if isinstance(answer, dict) else None
        if isinstance(found, list) and len(outputs) == 1:  # a model with one output does not name it
            found = {outputs[0]: found}
        if not isinstance(found, dict):
            raise ModelUnavailable("the answer has no outputs")
        return {name: guessed(found[name]) for name in outputs if name in found}

    def describe(self, deadline_s: float) -> str:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        try:
            metadata = self._ask("GET", f"{self._path}/metadata", None, deadline_s)
            signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
            return f"inputs {', '.join(signature['inputs'])}; outputs {', '.join(signature['outputs'])}"
        except (KeyError, TypeError):
            raise ModelUnavailable("the model has no signature serving_default") from None


class TorchServeRest(_Rest):
    """TorchServe with a handler that takes ``instances`` and returns ``predictions``, an object for each user."""

    def __init__(self, connection: KeptConnection, model: str, version: str | None) -> None:
        of_version = "" if version is None else f"/{quote(version, safe='')}"
        super().__init__(connection, f"/predictions/{quote(model, safe='')}{of_version}")

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: list[str], deadline_s: float) -> Arrays:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        columns = {name: array.tolist() for name, array in inputs.items()}
        instances = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        answer = self._ask("POST", self._path, {"instances": instances}, deadline_s)
        try:
            return {name: guessed([one[name] for one in answer["predictions"]]) for name in outputs}
        except (KeyError, TypeError):
            raise ModelUnavailable("the answer has no predictions with the outputs that were asked for") from None

    def describe(self, deadline_s: float) -> str:
        """See :class:`adapters.scoring.arrays.InferenceClient`."""
        self._ask("GET", "/ping", None, deadline_s)
        return "TorchServe is healthy, and does not describe its models"
