"""The gateway answers any request as its OpenAPI document says, and never with an internal error."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.gateway.roles import ROLES, ROUTES, Route
from tests.support.gateway import RunningGateway, a_token
from tests.support.live import Live

SEARCHES = "FRESHET_EXAMPLES" in os.environ
"""Whether to look for something new; else the same requests are sent each time."""
EXAMPLES = int(os.environ.get("FRESHET_EXAMPLES", "20"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def gateway(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    gateway = RunningGateway(
        tmp_path_factory.mktemp("gateway"),
        live.product.endpoints["redis"],
        live.settings.kafka.bootstrap_servers,
        default=str(live.settings.tenant),
    )
    yield gateway
    gateway.close()


@pytest.fixture(scope="module")
def document(gateway: RunningGateway) -> Any:
    return schemathesis.openapi.from_url(f"{gateway.base}/openapi.json", headers=authorized())


def authorized() -> dict[str, str]:
    return {"Authorization": f"Bearer {a_token(roles=list(ROLES))}"}


DOCUMENTED = [route for name, route in ROUTES.items() if name != "openapi"]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("route", DOCUMENTED, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.promise("openapi")
def test_every_response_matches_the_openapi_document(document: Any, route: Route, mode: GenerationMode) -> None:
    operation = document[route.path][route.method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, derandomize=not SEARCHES, deadline=None, suppress_health_check=list(HealthCheck))
    def answered(case: Any) -> None:
        case.call_and_validate(headers=authorized(), checks=CHECKS)

    with contextlib.suppress(Unsatisfiable):  # some routes have nothing that could be wrong
        answered()
