"""The gateway's OpenAPI document matches the declarations of the routes."""

import json
import re

import msgspec
import pytest
from fastapi import Request

from serving.gateway.app import documented_api
from serving.gateway.operations import OperationRouter, Reply
from serving.gateway.problems import Problem, ProblemDetails
from serving.gateway.questions import PARAMETERS
from serving.gateway.roles import ROUTES


class OneBody(msgspec.Struct):
    """A body."""

    at: int


class OtherBody(msgspec.Struct):
    """Another."""

    text: str


def test_document_describes_each_route_and_resolves_each_reference() -> None:
    document = documented_api().openapi()
    operations = {one["operationId"]: one for its in document["paths"].values() for one in its.values()}
    assert operations.keys() == ROUTES.keys() - {"openapi"}
    schemas = document["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))) == schemas.keys()
    for name, operation in operations.items():
        assert ("401" in operation["responses"]) == bool(ROUTES[name].roles)
    documented = {one["name"].encode() for one in operations["recommendations"]["parameters"] if one["in"] == "query"}
    assert documented == PARAMETERS


def test_operation_is_described_by_the_types_of_its_handler() -> None:
    router = OperationRouter()

    @router.answers("Either", 409, also={503: Reply("Busy", ProblemDetails)}, body=OneBody | list[OneBody])
    async def access(request: Request) -> OneBody | OtherBody:
        raise NotImplementedError

    (route,) = router.routes
    assert (route.path, route.methods) == ("/v1/users/{user:id}/data", {"GET"})  # type: ignore[attr-defined]
    responses = route.responses  # type: ignore[attr-defined]
    one, other = ({"$ref": f"#/components/schemas/{name}"} for name in ("OneBody", "OtherBody"))
    assert responses[200]["content"]["application/json"]["schema"] == {"anyOf": [one, other]}
    assert responses[409]["content"].keys() == {"application/problem+json"} and responses[503]["description"] == "Busy"
    extra = route.openapi_extra  # type: ignore[attr-defined]
    assert [(found["name"], found["in"], found["required"]) for found in extra["parameters"]] == [
        ("user", "path", True)
    ]
    body = extra["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"anyOf": [one, {"type": "array", "items": one}]}
    assert router.components().keys() == {"OneBody", "OtherBody", "ProblemDetails"}


def test_handler_without_a_route_in_the_table_is_refused() -> None:
    async def unknown_to_roles(request: Request) -> OneBody:
        raise NotImplementedError

    with pytest.raises(KeyError, match="unknown_to_roles"):
        OperationRouter().answers("Nothing")(unknown_to_roles)


@pytest.mark.parametrize(("reason", "more"), [(None, {}), ("missing_user", {"reason": "missing_user"})])
def test_only_problems_about_invalid_records_have_a_reason(reason: str | None, more: dict[str, str]) -> None:
    body = json.loads(Problem(400, "bad-request", "no", reason=reason).answer().body)
    assert (
        body
        == {"type": "urn:freshet:problem:bad-request", "title": "Bad Request", "status": 400, "detail": "no"} | more
    )
