"""Whatever is sent, the gateway answers as its OpenAPI document says, and never with a fault of its own."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.gateway import RunningGateway, a_token
from tests.support.live import Live

ALL_ROLES = ["frontend", "producer", "privacy", "operator", "admin"]


@pytest.fixture(scope="module")
def gateway(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    gateway = RunningGateway(
        tmp_path_factory.mktemp("gateway"),
        live.product.endpoints["redis"],
        live.settings.kafka.bootstrap_servers,
        tombstone_ms=live.settings.tombstone_ms(),
        redis_prefix=live.settings.redis.prefix,
        default=live.product.endpoints["key_ring"],
    )
    yield gateway
    gateway.close()


@pytest.fixture(scope="module")
def document(gateway: RunningGateway) -> Any:
    authorization = {"Authorization": f"Bearer {a_token(roles=ALL_ROLES)}"}
    return schemathesis.openapi.from_url(f"{gateway.base}/openapi.json", headers=authorization)


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_a_documented_one(case: Any) -> None:
    case.call_and_validate(
        headers={"Authorization": f"Bearer {a_token(roles=ALL_ROLES)}"},
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )
