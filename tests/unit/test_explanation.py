"""Which model explains a list."""

from pathlib import Path

import msgspec
import pytest

from jobs.explanation import _model_of
from jobs.remote_settings import RemoteModelSettings
from jobs.settings import ModelSettings, Settings
from schemas.errors import ModelError


@pytest.mark.parametrize("version", [None, "3"])
def test_list_of_a_model_on_a_server_is_said_to_have_no_explanation(tmp_path: Path, version: str | None) -> None:
    """It was said that the settings do not name the model."""
    remote = RemoteModelSettings(url="grpc://triton:8001", model="shop", version=version, items="items.txt")
    kafka = {"bootstrap_servers": "b:1"}
    settings = msgspec.convert({"kafka": kafka, "redis": {"url": "redis://r"}}, Settings)
    settings = msgspec.structs.replace(settings, model=ModelSettings(remote=remote))
    with pytest.raises(ModelError, match=r"made by shop.*, the model on the inference server .* cannot be explained"):
        _model_of(settings, remote.name())
    with pytest.raises(ModelError, match="which these settings do not name"):
        _model_of(settings, "another")
