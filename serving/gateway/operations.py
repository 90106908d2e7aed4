"""Declares each route's parameters and responses next to its handler, and builds the OpenAPI document from that.

    @router.answers("Acknowledged", 409, 413, body=ConsentChange)
    async def consent(request: Request) -> Acknowledged: ...

The handler has the name of its route in :mod:`serving.gateway.roles`, which defines method and path. It returns a
struct, which is sent as JSON and described by its type; or a response, and then `sends` is the type of its body.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import cleandoc
from types import UnionType
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response

from serving.gateway.lane import JSON
from serving.gateway.parameters import PathParameters
from serving.gateway.problems import CONTENT_TYPE, ProblemDetails
from serving.gateway.roles import ROUTES, Route

Document = dict[str, Any]
Handler = Callable[[Request], Awaitable[msgspec.Struct | Response]]
_ABOUT: Final = """Recommendation lists, interactions and consents over HTTP.

- Paths are compared as sent: a path with a trailing slash, or with two slashes in a row, is not found.
- Unknown query parameters are ignored and counted; documented ones must be valid.
- Bodies are JSON, optionally with `Content-Encoding: gzip`; the size limit applies to both forms.
- Errors are problem details (RFC 9457).
"""
_SECURITY_SCHEMES: Final[Document] = {
    "token": {"type": "http", "scheme": "bearer", "description": "A JSON Web Token or an API key"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "An API key as the password, with any user name"},
}
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
    429: "Too many requests; `Retry-After` says when to retry",
    431: "Headers too large or too many",
    503: "Kafka or Redis is unavailable; `Retry-After` says when to retry",
}
_OF_ANY_ROUTE: Final = (400, 408, 414, 431)
"""Responses to malformed request heads."""
_OF_ROUTES_WITH_ROLES: Final = (401, 403, 429)
_REFERENCE: Final = "#/components/schemas/{name}"


class Reply(NamedTuple):
    """One response of a route: its meaning, and the type of its body (`str` is plain text, None is no body)."""

    meaning: str
    kind: Any


NOT_MODIFIED: Final = {304: Reply("Not modified: the cached response is still valid", None)}


class OperationRouter(APIRouter):
    """A FastAPI router whose routes are described by msgspec types."""

    def __init__(self) -> None:
        super().__init__(default_response_class=Response)  # which adds nothing of its own to the document
        self._kinds: list[Any] = []

    def answers(
        self,
        meaning: str,
        *problems: int,
        status: int = 200,
        sends: Any = None,
        also: Mapping[int, Reply] | None = None,
        query: type | None = None,
        headers: type | None = None,
        body: Any = None,
    ) -> Callable[[Handler], Handler]:
        """Register the handler for its route. `problems` are its error statuses beyond those that all routes share."""
        takes = {"path": PathParameters, "query": query, "header": headers}

        def serve(handler: Handler) -> Handler:
            route, name = ROUTES[handler.__name__], handler.__name__
            replies = {status: Reply(meaning, sends or get_type_hints(handler)["return"]), **(also or {})}

            async def endpoint(request: Request) -> Response:
                found = await handler(request)
                return found if isinstance(found, Response) else json_of(found, status)

            self.add_api_route(
                route.path.replace("{user}", "{user:id}").replace("{item}", "{item:id}"),
                endpoint,
                methods=[route.method],
                name=name,
                operation_id=name,
                description=cleandoc(handler.__doc__ or ""),
                status_code=status,
                responses={code: self._response(one) for code, one in (_refusals(route, problems) | replies).items()},
                openapi_extra=self._extra(route, takes, body),
            )
            return handler

        return serve

    def components(self) -> Document:
        """The schemas that the descriptions refer to."""
        found = msgspec.json.schema_components(self._kinds, ref_template=_REFERENCE)[1]
        for schema in found.values():
            if "description" in schema:  # a docstring, with the marks of Sphinx
                schema["description"] = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", cleandoc(schema["description"]))
        return found

    def _response(self, reply: Reply) -> Document:
        return {"description": reply.meaning, **({} if reply.kind is None else self._content(reply.kind))}

    def _extra(self, route: Route, takes: Mapping[str, type | None], body: Any) -> Document:
        parameters = [one for where, of in takes.items() if of for one in _parameters(of, where, route.path)]
        extra: Document = {"parameters": parameters} if parameters else {}
        if body is not None:
            extra["requestBody"] = {"required": True, **self._content(body)}
        return extra if route.roles else extra | {"security": []}

    def _content(self, kind: Any) -> Document:
        kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        self._kinds += kinds
        schemas, _ = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
        media_type = {ProblemDetails: CONTENT_TYPE, str: b"text/plain"}.get(kind, JSON[1]).decode()
        return {"content": {media_type: {"schema": schemas[0] if len(kinds) == 1 else {"anyOf": list(schemas)}}}}


class DocumentedApi(FastAPI):
    """The routes of a router, and their OpenAPI document."""

    def __init__(self, router: OperationRouter, lifespan: Any) -> None:
        super().__init__(
            title="Freshet", version="1", description=_ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan
        )
        self.include_router(router)
        self._components = router.components

    def openapi(self) -> Document:
        """FastAPI's document, completed with the referenced types and the security schemes."""
        document = super().openapi()
        document["components"] = {"schemas": self._components(), "securitySchemes": _SECURITY_SCHEMES}
        document["security"] = [{name: []} for name in _SECURITY_SCHEMES]
        return document


def json_of(body: msgspec.Struct, status: int) -> Response:
    """A JSON response that no cache may keep."""
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(body), status, headers, media_type=JSON[1].decode())


def _refusals(route: Route, problems: Sequence[int]) -> dict[int, Reply]:
    shared = _OF_ANY_ROUTE + (_OF_ROUTES_WITH_ROLES if route.roles else ())
    return {status: Reply(_PROBLEMS[status], ProblemDetails) for status in (*shared, *problems)}


def _parameters(of: type, where: str, path: str) -> list[Document]:
    """One parameter per field of `of`, in order; for paths, only those in `path`."""
    its = msgspec.json.schema_components([of])[1][of.__name__]
    schemas = {name: its["properties"][name] for name in of.__annotations__}
    return [
        {"name": name, "in": where, "description": schema.pop("description"), "schema": schema}
        | ({"required": True} if name in its["required"] else {})
        for name, schema in schemas.items()
        if where != "path" or f"{{{name}}}" in path
    ]
