"""MLServer, a real server of the Open Inference Protocol, over REST and gRPC.

It needs other versions of packages than the job, so it runs in an environment of its own: `pip install mlserver` there,
and name its `mlserver` in the variable `MLSERVER`.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.local.ports import free_port
from jobs.remote_model import check_remote, remote_scorer
from jobs.remote_settings import RemoteModelSettings
from schemas.errors import FreshetError, ModelUnavailable
from tests.support.live import until
from tests.support.models import history

MLSERVER = os.environ.get("MLSERVER")
pytestmark = pytest.mark.skipif(MLSERVER is None, reason="MLSERVER does not name an mlserver to test with")
RUNTIME = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Ranker(MLModel):
    async def predict(self, request):
        rows = NumpyCodec.decode_input(request.inputs[0])
        if rows[0, -1] == 2:
            raise ValueError("row 2 cannot be scored")
        scores = np.zeros((len(rows), 5), np.float32)
        for user, row in enumerate(rows):
            for place, item in enumerate(row):
                scores[user, item] += place
        if self.name == "plain":
            return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
        ids = np.argsort(-scores[:, 1:], axis=1, kind="stable")[:, :3] + 1
        best = np.take_along_axis(scores, ids, axis=1)
        outputs = [NumpyCodec.encode_output("scores", best), NumpyCodec.encode_output("ids", ids)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """URL by protocol, and the file of the items."""
    folder = tmp_path_factory.mktemp("mlserver")
    (folder / "ranker.py").write_text(RUNTIME)
    for name in ("plain", "ranked"):
        (folder / name).mkdir()
        settings = {"name": name, "implementation": "ranker.Ranker", "inputs": [], "outputs": []}
        (folder / name / "model-settings.json").write_text(json.dumps(settings))
    ports = {"http_port": free_port(), "grpc_port": free_port(), "metrics_port": free_port()}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    (folder / "items.txt").write_text("a\nb\nc\nd\n")
    urls = {
        "open-inference-rest": f"http://127.0.0.1:{ports['http_port']}",
        "open-inference-grpc": f"grpc://127.0.0.1:{ports['grpc_port']}",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(MLSERVER), "start", "."], cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": "."}
        )
        try:
            for protocol in urls:
                until(lambda protocol=protocol: answers(urls, folder, protocol), "MLServer answers", 60)
            yield urls, folder / "items.txt"
        finally:
            process.terminate()
            process.wait(20)


def answers(urls: dict[str, str], folder: Path, protocol: Any) -> bool:
    try:
        check_remote(a_server(urls, folder / "items.txt", protocol, "plain"))
    except FreshetError:
        return False
    return True


def a_server(urls: dict[str, str], items: Path, protocol: Any, model: str) -> RemoteModelSettings:
    ids = "ids" if model == "ranked" else None
    return RemoteModelSettings(
        url=urls[protocol], protocol=protocol, model=model, items=str(items), ids_output=ids, deadline_ms=5_000, top_k=3
    )


@pytest.mark.parametrize("model", ["plain", "ranked"])
@pytest.mark.parametrize("protocol", ["open-inference-rest", "open-inference-grpc"])
def test_mlserver_ranks(servers: tuple[dict[str, str], Path], protocol: str, model: str) -> None:
    settings = a_server(*servers, protocol, model)
    assert f"{model} answers in" in check_remote(settings)
    scores, rows = remote_scorer(settings, 5_000).score(np.concatenate([history(1, 3, 3), history(4)]))
    assert rows[0, :2].tolist() == [3, 1]
    assert scores[0, :2].tolist() == [37, 17]
    assert (rows[1, 0], scores[1, 0]) == (4, 19)


@pytest.mark.parametrize("protocol", ["open-inference-rest", "open-inference-grpc"])
def test_failing_model_is_unavailable(servers: tuple[dict[str, str], Path], protocol: str) -> None:
    scorer = remote_scorer(a_server(*servers, protocol, "plain"), 5_000)
    with pytest.raises(ModelUnavailable, match="the server answered"):
        scorer.score(history(2))
    assert scorer.score(history(3))[1][0, 0] == 3
