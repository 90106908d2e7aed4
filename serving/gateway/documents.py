"""What OpenAPI says of each route: parameters, bodies, and every answer that it gives."""

import re
from typing import Any, Final

import msgspec

from schemas.consents import ConsentChange
from schemas.events import USER_ID_LENGTH_MAX, Interaction
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
    """Why a request was refused (RFC 9457). `reason` is for records that were not valid."""

    type: str
    title: str
    status: int
    detail: str
    reason: str | None = None


class Acknowledged(msgspec.Struct):
    """Where a record stands in its topic; `append_ts` in ms since the epoch.

    With `counted_as` the record was not valid for that `reason`, and counts as a withdrawal.
    """

    status: str
    append_ts: int
    partition: int
    offset: int
    counted_as: str | None = None
    reason: str | None = None
    detail: str | None = None


class EventResult(msgspec.Struct):
    """What became of one of many interactions."""

    status: str
    append_ts: int | None = None
    partition: int | None = None
    offset: int | None = None
    reason: str | None = None
    detail: str | None = None


class EventResults(msgspec.Struct):
    """What became of each, in the order in which they came."""

    accepted: int
    rejected: int
    results: list[EventResult]


class BeingCollected(msgspec.Struct):
    """What is held of a user is being collected: `id` is what to ask for, `status` is collecting."""

    id: str
    status: str


class ServedModel(msgspec.Struct):
    """`served_at` in ms since the epoch."""

    name: str
    served_at: int


class ServedModels(msgspec.Struct):
    """The models behind the lists that were served."""

    models: list[ServedModel]


class Health(msgspec.Struct):
    """Whether a process lives, or is ready.

    `redis` is up, away, or closed: after a restart, a failover or a flush it may be older than acknowledged
    withdrawals, and everybody gets popular lists until the job has caught up. `complaints` say what is wrong with how
    it is configured.
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
            schema["description"] = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", schema["description"])
    return found


def _of(kind: type) -> Document:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def _content(kind: type) -> Document:
    return {"content": {"application/json": {"schema": _of(kind)}}}


def _problem(description: str) -> Document:
    return {"description": description, "content": {CONTENT_TYPE.decode(): {"schema": _of(ProblemDetails)}}}


_PROBLEMS: Final = {
    400: "not of the documented form",
    401: "nobody is known to ask",
    403: "may not",
    404: "not there",
    408: "the body came too slowly",
    409: "the user said no since",
    410: "it was not collected, and why; ask for it anew",
    413: "too large",
    414: "path and query are too long",
    415: "not JSON, or in a content encoding other than gzip",
    431: "the headers are too large or too many",
    429: "too many requests; Retry-After says when to come back",
    503: "Kafka or Redis is away; Retry-After says when to come back",
}


_HEAD: Final = (400, 408, 414, 431)
"""Of requests whose head is not as it should be, whatever they are for."""


def _answers(ok: int, description: str, kind: type | None, *problems: int) -> dict[int | str, Document]:
    answers: dict[int | str, Document] = {ok: {"description": description, **(_content(kind) if kind else {})}}
    return answers | {status: _problem(_PROBLEMS[status]) for status in (*_HEAD, 401, 403, 429, *problems)}


def _parameter(name: str, schema: Document, description: str, where: str = "query") -> Document:
    found = {"name": name, "in": where, "schema": schema, "description": description}
    return found | ({"required": True} if where == "path" else {})


def _text(description: str, name: str) -> Document:
    return _parameter(name, {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX}, description)


_USER: Final = _parameter(
    "user", {"type": "string", "minLength": 1, "maxLength": USER_ID_LENGTH_MAX}, "the user id; a slash as %2F", "path"
)
_N: Final = _parameter(
    "n", {"type": "integer", "minimum": 1, "maximum": N_MAX, "default": N_DEFAULT}, "how many items at most"
)
_SURFACE: Final = _text("whose popular list may stand in, such as `home`", "surface")
_SEGMENT: Final = _text("whose popular list may stand in, such as `country:GB`", "segment")
_FILTERS: Final = [
    _parameter(
        "exclude",
        {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX},
         "maxItems": EXCLUDED_MAX},
        "ids of items not to show",
    ),
    _parameter("in_stock", {"type": "boolean", "default": False}, "only what the catalogue does not know to be gone"),
    _text("only items of this category", "category"),
]  # fmt: skip
_PURPOSE: Final = {"type": "string", "minLength": 1, "maxLength": PURPOSE_LENGTH_MAX}
_PRIORITY: Final = _parameter(
    "Priority", {"type": "string", "example": "u=1"}, "urgency (RFC 9218), no better than a role may ask for", "header"
)
_DEADLINE: Final = _parameter(
    "Freshet-Deadline-Ms",
    {"type": "integer", "minimum": 1, "maximum": DEADLINE_MS_MAX},
    "after so long, what is held stands in",
    "header",
)
_NOT_MODIFIED: Final = {304: {"description": "the caller has it, and may still use it"}}


def _body(schema: Document) -> Document:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


RECOMMENDATIONS: Final[Document] = {
    "operation_id": "recommendations",
    "responses": _answers(200, "the user's list, or what stands in for it", RecommendationList) | _NOT_MODIFIED,
    "openapi_extra": {"parameters": [_USER, _N, _SURFACE, _SEGMENT, *_FILTERS, _PRIORITY, _DEADLINE]},
}
POPULAR: Final[Document] = {
    "operation_id": "popular",
    "responses": _answers(200, "a popular list", RecommendationList) | _NOT_MODIFIED,
    "openapi_extra": {
        "parameters": [_N, _SURFACE, _SEGMENT, _text("lets caches tell tenants apart; that of the caller", "tenant")]
    },
}
EVENTS: Final[Document] = {
    "operation_id": "events",
    "responses": _answers(202, "what became of each", EventResults, 413, 415, 503),
    "openapi_extra": {
        "requestBody": _body({"oneOf": [_of(Interaction), {"type": "array", "items": _of(Interaction)}]})
    },
}
EVENTS["responses"][202] = {
    "description": "what became of the interaction, or of each",
    "content": {"application/json": {"schema": {"anyOf": [_of(Acknowledged), _of(EventResults)]}}},
}
CONSENT: Final[Document] = {
    "operation_id": "consent",
    "responses": _answers(200, "acknowledged", Acknowledged, 409, 413, 415, 503),
    "openapi_extra": {"requestBody": _body(_of(ConsentChange))},
}
ERASURE: Final[Document] = {
    "operation_id": "erasure",
    "responses": _answers(200, "acknowledged", Acknowledged, 409, 413, 503),
    "openapi_extra": {"parameters": [_USER]},
}
ACCESS: Final[Document] = {
    "operation_id": "access",
    "responses": _answers(202, "it is being collected; Location says where to get it", BeingCollected, 503),
    "openapi_extra": {
        "parameters": [
            _USER,
            {
                **_parameter("purpose", _PURPOSE, "what this is read for"),
                "required": True,
            },
        ]
    },
}
ANSWER: Final[Document] = {
    "operation_id": "answer",
    "responses": _answers(200, "all that is held", None, 404, 410, 503)
    | {
        200: {"description": "all that is held", "content": {"application/json": {"schema": {"type": "object"}}}},
        202: {"description": "it is still being collected; Retry-After says when to ask", **_content(BeingCollected)},
    },
    "openapi_extra": {
        "parameters": [
            _USER,
            _parameter("id", {"type": "string", "pattern": "^[0-9a-f-]+$"}, "what was answered to who asked", "path"),
        ]
    },
}
MODEL: Final[Document] = {
    "operation_id": "model",
    "responses": _answers(200, "the models", ServedModels),
}
METRICS: Final[Document] = {
    "operation_id": "metrics",
    "responses": _answers(200, "metrics in Prometheus' text format", None)
    | {200: {"description": "metrics in Prometheus' text format", "content": {"text/plain": {}}}},
}
_HEADS: Final = {status: _problem(_PROBLEMS[status]) for status in _HEAD}
LIVE: Final[Document] = {
    "operation_id": "livez",
    "responses": {200: {"description": "it lives", **_content(Health)}, **_HEADS},
}
READY: Final[Document] = {
    "operation_id": "readyz",
    "responses": {
        200: {"description": "it is ready", **_content(Health)},
        503: _problem("it is about to end"),
        **_HEADS,
    },
}
SECURITY_SCHEMES: Final[Document] = {
    "token": {"type": "http", "scheme": "bearer", "description": "a JSON Web Token or an API key"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "an API key as the password, with any user name"},
}
ABOUT: Final = """Recommendation lists, interactions and consents over HTTP.

- Paths are compared as they were sent: one with a slash at its end, or with two slashes in a row, is not found.
- Query parameters that are not documented are ignored and counted; one that is documented must be of its form.
- Bodies are JSON, as they are or with `Content-Encoding: gzip`; the bound of a body holds for both forms.
- Errors are problem details (RFC 9457).
"""
