"""Models in an MLflow registry, by the URIs that MLflow knows (``models:/name@alias``, ``runs:/…``).

MLflow finds its server and credentials itself (``MLFLOW_TRACKING_URI`` …). `pip install mlflow-skinny` is enough.
"""

import contextlib
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from adapters.files.model_registry import MANIFEST
from schemas.errors import ModelError

SCHEMES: Final = ("models:/", "runs:/", "mlflow-artifacts:/")


def is_mlflow_uri(text: str) -> bool:
    """Whether MLflow knows what `text` names.

    >>> is_mlflow_uri("models:/shop@champion"), is_mlflow_uri("shop/1a2b"), is_mlflow_uri("s3://models")
    (True, False, False)
    """
    return text.startswith(SCHEMES)


@contextlib.contextmanager
def downloaded(uri: str) -> Iterator[Path]:
    """The folder of a model, which is deleted afterwards.

    Raises :class:`ModelError` without MLflow, or if the artefacts at `uri` have no folder of a model.
    """
    try:
        # Not in the requirements: whoever keeps models in MLflow installs its client.
        download_artifacts = importlib.import_module("mlflow.artifacts").download_artifacts
    except ImportError:
        raise ModelError(f"{uri} is in MLflow, whose client is not installed: pip install mlflow-skinny") from None
    with tempfile.TemporaryDirectory(prefix="freshet-mlflow-") as folder:
        try:
            found = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        except Exception as error:  # MLflow's own, or those of the store behind it
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelError(f"{uri} cannot be downloaded from MLflow: {told}") from None
        manifests = sorted(found.rglob(MANIFEST), key=lambda path: len(path.parts))
        if not manifests:
            raise ModelError(
                f"{uri} has no {MANIFEST}: log the folder that `freshet model train` or `freshet model adopt` writes "
                "as artefacts"
            )
        yield manifests[0].parent
