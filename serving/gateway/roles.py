"""The table of routes and roles. Only routes in this table are served."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, get_args

Role = Literal["frontend", "producer", "privacy", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
Admitted = Literal["read", "write", "consent", "access", "health"]


class Route(NamedTuple):
    """A route: which roles may use it (none: everyone, without credentials), and its admission class."""

    method: str
    path: str
    roles: frozenset[Role]
    admitted: Admitted


def _route(method: str, path: str, admitted: Admitted, *roles: Role) -> Route:
    return Route(method, path, frozenset(roles), admitted)


ROUTES: Final[dict[str, Route]] = {
    "recommendations": _route("GET", "/v1/recommendations/{user}", "read", "frontend", "admin"),
    "recently_viewed": _route("GET", "/v1/users/{user}/recently-viewed", "read", "frontend", "admin"),
    "buy_again": _route("GET", "/v1/users/{user}/buy-again", "read", "frontend", "admin"),
    "popular": _route("GET", "/v1/popular", "read", "frontend", "producer", "operator", "admin"),
    "similar": _route("GET", "/v1/items/{item}/similar", "read", "frontend", "producer", "operator", "admin"),
    "trending": _route("GET", "/v1/trending", "read", "frontend", "producer", "operator", "admin"),
    "cart": _route("POST", "/v1/recommendations", "read", "frontend", "admin"),
    "events": _route("POST", "/v1/events", "write", "producer", "admin"),
    "consent": _route("POST", "/v1/consent", "consent", "producer", "privacy", "admin"),
    "erasure": _route("DELETE", "/v1/users/{user}", "consent", "privacy", "admin"),
    "access": _route("GET", "/v1/users/{user}/data", "access", "privacy", "admin"),
    "answer": _route("GET", "/v1/users/{user}/data/{id}", "access", "privacy", "admin"),
    "model": _route("GET", "/v1/model", "write", "operator", "admin"),
    "metrics": _route("GET", "/metrics", "write", "operator", "admin"),
    "openapi": _route("GET", "/openapi.json", "write", *ROLES),
    "livez": _route("GET", "/livez", "health"),
    "readyz": _route("GET", "/readyz", "health"),
}

URGENCY_BEST: Final[dict[Role, int]] = {"frontend": 0, "producer": 2, "privacy": 2, "operator": 2, "admin": 0}
"""The most urgent value of RFC 9218 (0 to 7) that a role may request."""


def opened_by(roles: Sequence[Role]) -> dict[str, Role]:
    """The names of the routes that `roles` may use, each with the first role that permits it.

    >>> opened_by(["producer", "privacy"])
    {'popular': 'producer', 'similar': 'producer', 'trending': 'producer', 'events': 'producer', \
'consent': 'producer', 'erasure': 'privacy', 'access': 'privacy', 'answer': 'privacy', 'openapi': 'producer'}
    """
    opening = {name: [role for role in roles if role in route.roles] for name, route in ROUTES.items()}
    return {name: its[0] for name, its in opening.items() if its}
