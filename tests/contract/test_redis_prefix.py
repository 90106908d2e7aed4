"""A prefix in Redis belongs to one deployment, on a real Redis."""

from pathlib import Path

import pytest

from adapters.redis.address import RedisSettings
from jobs.redis_check import claim_prefix
from schemas.errors import SettingsError
from schemas.store import owner_key
from tests.support.redis_server import running_redis


def test_prefix_of_another_deployment_is_refused_until_replaced(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        ours = RedisSettings(urls=(server.url,), prefix="shop:")
        for _ in range(2):
            claim_prefix(ours, "first", replace=False)
        with pytest.raises(SettingsError, match=r"to another deployment, .* id first"):
            claim_prefix(ours, "second", replace=False)
        claim_prefix(RedisSettings(urls=(server.url,), prefix="other:"), "second", replace=False)
        claim_prefix(ours, "second", replace=True)
        with pytest.raises(SettingsError, match="id second"):
            claim_prefix(ours, "first", replace=False)
        server.client.flushall()
        claim_prefix(ours, "first", replace=False)
        assert server.client.get(owner_key("shop:")) == b"first", "written again after Redis has lost it"


def test_unavailable_redis_does_not_prevent_job_start(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        ours = RedisSettings(urls=(server.url,), timeout_ms=200)
        server.kill()
        claim_prefix(ours, "first", replace=False)
        server.start()
