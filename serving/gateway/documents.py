"""The OpenAPI description of each route: parameters, bodies and every response."""

import re
from inspect import cleandoc
from typing import Any, Final

import msgspec

from schemas.consents import ConsentChange
from schemas.events import USER_ID_LENGTH_MAX, Interaction
from schemas.ids import NAME_PATTERN
from schemas.lists import RecommendationList
from serving.gateway.problems import CONTENT_TYPE
from serving.gateway.questions import (
    DEADLINE_MS_MAX,
    EXCLUDED_MAX,
    N_DEFAULT,
    N_MAX,
    NAME_LENGTH_MAX,
    PURPOSE_LENGTH_MAX,
)

Document = dict[str, Any]


class ProblemDetails(msgspec.Struct):
    """Why a request was rejected (RFC 9457). Invalid records also have a `reason`."""

    type: str
    title: str
    status: int
    detail: str
    reason: str | None = None


class Acknowledged(msgspec.Struct):
    """The position of a record in its topic; `append_ts` in ms since the epoch.

    `counted_as` is set if the record was invalid, for that `reason`, and counts as a withdrawal.
    """

    status: str
    append_ts: int
    partition: int
    offset: int
    counted_as: str | None = None
    reason: str | None = None
    detail: str | None = None


class EventResult(msgspec.Struct):
    """The result for one interaction of an array."""

    status: str
    append_ts: int | None = None
    partition: int | None = None
    offset: int | None = None
    reason: str | None = None
    detail: str | None = None


class EventResults(msgspec.Struct):
    """The result for each interaction, in the order of the request."""

    accepted: int
    rejected: int
    results: list[EventResult]


class BeingCollected(msgspec.Struct):
    """The user's data is being collected: request it by `id`. `status` is `collecting`."""

    id: str
    status: str


class ServedModel(msgspec.Struct):
    """A model, and when a list made by it was last served (`served_at`, in ms since the epoch)."""

    name: str
    served_at: int


class ServedModels(msgspec.Struct):
    """The models that made the served lists."""

    models: list[ServedModel]


class Health(msgspec.Struct):
    """Liveness or readiness.

    `redis` is `up`, `away` or `closed`. Closed means that Redis may be older than acknowledged withdrawals, after a
    restart, a failover or a flush: everybody gets popular lists until the job has caught up. `complaints` name problems
    of its configuration.
    """

    status: str
    redis: str | None = None
    complaints: list[str] | None = None


_TYPES: Final = (
    RecommendationList, Interaction, ConsentChange, ProblemDetails, Acknowledged, EventResults, BeingCollected,
    ServedModels, Health,
)  # fmt: skip
_REFERENCE: Final = "#/components/schemas/{name}"


def components() -> Document:
    """The schemas that the documents refer to."""
    found = msgspec.json.schema_components(_TYPES, ref_template=_REFERENCE)[1]
    for schema in found.values():
        if "description" in schema:  # a docstring, with the marks of Sphinx
            schema["description"] = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", cleandoc(schema["description"]))
    return found


def _of(kind: type) -> Document:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def _content(kind: type) -> Document:
    return {"content": {"application/json": {"schema": _of(kind)}}}


def _problem(description: str) -> Document:
    return {"description": description, "content": {CONTENT_TYPE.decode(): {"schema": _of(ProblemDetails)}}}


_PROBLEMS: Final = {
    400: "Malformed request",
    401: "Missing or invalid credentials",
    403: "Role not permitted",
    404: "Not found",
    408: "Request timed out while it was being received",
    409: "The user has withdrawn consent since",
    410: "The data was not collected; `detail` says why. Request it again",
    413: "Body too large",
    414: "Path and query too long",
    415: "Not JSON, or a content encoding other than gzip",
    431: "Headers too large or too many",
    429: "Too many requests; `Retry-After` says when to retry",
    503: "Kafka or Redis is unavailable; `Retry-After` says when to retry",
}


_HEAD: Final = (400, 408, 414, 431)
"""Responses to malformed request heads, on every route."""


def _answers(ok: int, description: str, kind: type | None, *problems: int) -> dict[int | str, Document]:
    answers: dict[int | str, Document] = {ok: {"description": description, **(_content(kind) if kind else {})}}
    return answers | {status: _problem(_PROBLEMS[status]) for status in (*_HEAD, 401, 403, 429, *problems)}


def _parameter(name: str, schema: Document, description: str, where: str = "query") -> Document:
    found = {"name": name, "in": where, "schema": schema, "description": description}
    return found | ({"required": True} if where == "path" else {})


def _text(description: str, name: str) -> Document:
    return _parameter(name, {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX}, description)


_USER: Final = _parameter(
    "user",
    {"type": "string", "minLength": 1, "maxLength": USER_ID_LENGTH_MAX},
    "The user id; encode a slash as %2F",
    "path",
)
_N: Final = _parameter(
    "n", {"type": "integer", "minimum": 1, "maximum": N_MAX, "default": N_DEFAULT}, "Maximum number of items"
)
_SURFACE: Final = _text("Fall back to the popular list of this surface, such as `home`", "surface")
_SEGMENT: Final = _text("Fall back to the popular list of this segment, such as `country:GB`", "segment")
_FILTERS: Final = [
    _parameter(
        "exclude",
        {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX},
         "maxItems": EXCLUDED_MAX},
        "Item ids to leave out",
    ),
    _parameter("in_stock", {"type": "boolean", "default": False}, "Leave out items known to be out of stock"),
    _text("Only items of this category", "category"),
]  # fmt: skip
_PURPOSE: Final = {"type": "string", "minLength": 1, "maxLength": PURPOSE_LENGTH_MAX, "pattern": NAME_PATTERN}
_PRIORITY: Final = _parameter(
    "Priority", {"type": "string", "example": "u=1"}, "Urgency (RFC 9218), limited by the role", "header"
)
_DEADLINE: Final = _parameter(
    "Freshet-Deadline-Ms",
    {"type": "integer", "minimum": 1, "maximum": DEADLINE_MS_MAX},
    "How long to wait for Redis before falling back to a cached popular list",
    "header",
)
_NOT_MODIFIED: Final = {304: {"description": "Not modified: the cached response is still valid"}}


def _body(schema: Document) -> Document:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


RECOMMENDATIONS: Final[Document] = {
    "operation_id": "recommendations",
    "responses": _answers(200, "The user's list, or a fallback", RecommendationList) | _NOT_MODIFIED,
    "openapi_extra": {"parameters": [_USER, _N, _SURFACE, _SEGMENT, *_FILTERS, _PRIORITY, _DEADLINE]},
}
POPULAR: Final[Document] = {
    "operation_id": "popular",
    "responses": _answers(200, "A popular list", RecommendationList) | _NOT_MODIFIED,
    "openapi_extra": {
        "parameters": [
            _N,
            _SURFACE,
            _SEGMENT,
            _text("The caller's tenant, so that caches can tell tenants apart", "tenant"),
        ]
    },
}
EVENTS: Final[Document] = {
    "operation_id": "events",
    "responses": _answers(202, "The result for each interaction", EventResults, 413, 415, 503),
    "openapi_extra": {
        "requestBody": _body({"oneOf": [_of(Interaction), {"type": "array", "items": _of(Interaction)}]})
    },
}
EVENTS["responses"][202] = {
    "description": "The position of the interaction, or the result for each of an array",
    "content": {"application/json": {"schema": {"anyOf": [_of(Acknowledged), _of(EventResults)]}}},
}
CONSENT: Final[Document] = {
    "operation_id": "consent",
    "responses": _answers(200, "Acknowledged", Acknowledged, 409, 413, 415, 503),
    "openapi_extra": {"requestBody": _body(_of(ConsentChange))},
}
ERASURE: Final[Document] = {
    "operation_id": "erasure",
    "responses": _answers(200, "Acknowledged", Acknowledged, 409, 413, 503),
    "openapi_extra": {"parameters": [_USER]},
}
ACCESS: Final[Document] = {
    "operation_id": "access",
    "responses": _answers(202, "Collecting; `Location` says where to get the data", BeingCollected, 503),
    "openapi_extra": {
        "parameters": [
            _USER,
            {
                **_parameter("purpose", _PURPOSE, "Why the data is requested; recorded in the audit trail"),
                "required": True,
            },
        ]
    },
}
ANSWER: Final[Document] = {
    "operation_id": "answer",
    "responses": _answers(200, "The user's data", None, 404, 410, 503)
    | {
        200: {"description": "The user's data", "content": {"application/json": {"schema": {"type": "object"}}}},
        202: {"description": "Still collecting; `Retry-After` says when to ask again", **_content(BeingCollected)},
    },
    "openapi_extra": {
        "parameters": [
            _USER,
            _parameter(
                "id",
                {"type": "string", "pattern": "^[0-9a-f-]+$"},
                "The id from the response to the request for the data",
                "path",
            ),
        ]
    },
}
MODEL: Final[Document] = {
    "operation_id": "model",
    "responses": _answers(200, "The models", ServedModels),
}
METRICS: Final[Document] = {
    "operation_id": "metrics",
    "responses": _answers(200, "Metrics in the text format of Prometheus", None)
    | {200: {"description": "Metrics in the text format of Prometheus", "content": {"text/plain": {}}}},
}
_HEADS: Final = {status: _problem(_PROBLEMS[status]) for status in _HEAD}
LIVE: Final[Document] = {
    "operation_id": "livez",
    "responses": {200: {"description": "The process is alive", **_content(Health)}, **_HEADS},
}
READY: Final[Document] = {
    "operation_id": "readyz",
    "responses": {
        200: {"description": "Ready for requests", **_content(Health)},
        503: _problem("Shutting down"),
        **_HEADS,
    },
}
SECURITY_SCHEMES: Final[Document] = {
    "token": {"type": "http", "scheme": "bearer", "description": "A JSON Web Token or an API key"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "An API key as the password, with any user name"},
}
ABOUT: Final = """Recommendation lists, interactions and consents over HTTP.

- Paths are compared as sent: a path with a trailing slash, or with two slashes in a row, is not found.
- Unknown query parameters are ignored and counted; documented ones must be valid.
- Bodies are JSON, optionally with `Content-Encoding: gzip`; the size limit applies to both forms.
- Errors are problem details (RFC 9457).
"""
