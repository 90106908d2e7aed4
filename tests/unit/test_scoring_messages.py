"""The messages of TensorFlow Serving agree with bytes that TensorFlow's own library wrote (tests/golden/scoring)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.scoring.messages import message
from adapters.scoring.rpc import TensorFlowRpc

GOLDEN = Path(__file__).parents[1] / "golden" / "scoring"
ITEMS = np.arange(40, dtype=np.int32).reshape(2, 20)


class Channel:
    """Records the request, and answers with `answer`."""

    def __init__(self, answer: bytes) -> None:
        self.sent = b""
        self._answer = answer

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any) -> Any:
        def call(request: Any, timeout: float, metadata: Any) -> Any:
            self.sent = request_serializer(request)
            return response_deserializer(self._answer)

        return call


@pytest.mark.parametrize("form", ["packed", "values"])
def test_messages_are_those_of_tensorflow(form: str) -> None:
    channel = Channel((GOLDEN / f"predict-answer-{form}.bin").read_bytes())
    client = TensorFlowRpc(channel, "shop", "7")  # type: ignore[arg-type]
    found = client.infer({"items": ITEMS, "weights": np.full((2, 20), 0.5, np.float32)}, ["scores", "ids"], 1)
    assert found["scores"].tolist() == [[2.5, 1.0], [3.0, -1.5]]
    assert found["ids"].tolist() == [[4, 2], [1, 3]]
    request = message("PredictRequest")
    assert request.FromString(channel.sent) == request.FromString((GOLDEN / "predict-request.bin").read_bytes())
