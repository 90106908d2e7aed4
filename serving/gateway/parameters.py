"""The parameters of paths, queries and headers, and their bounds, as in the OpenAPI document."""

from typing import Annotated, Final, TypeAlias, TypedDict

from msgspec import Meta

from schemas.audit import VisibleName
from schemas.decoding import REQUEST_PATTERN
from schemas.events import ID_LENGTH_MAX, USER_ID_LENGTH_MAX

N_DEFAULT: Final = 10
N_MAX: Final = 100
NAME_LENGTH_MAX: Final = 100
EXCLUDED_MAX: Final = 200
DEADLINE_MS_MAX: Final = 10_000
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
_User: TypeAlias = Annotated[str, Meta(min_length=1, max_length=USER_ID_LENGTH_MAX)]
_Item: TypeAlias = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH_MAX)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=N_MAX, extra_json_schema={"default": N_DEFAULT})]
_Urgency: TypeAlias = Annotated[str, Meta(extra_json_schema={"example": "u=1"})]
_Deadline: TypeAlias = Annotated[int, Meta(ge=1, le=DEADLINE_MS_MAX)]


class PathParameters(TypedDict):
    """Parameters in paths."""

    user: Annotated[_User, Meta(description="The user id; encode a slash as %2F")]
    item: Annotated[_Item, Meta(description="The item id; encode a slash as %2F")]
    id: Annotated[
        str, Meta(pattern=REQUEST_PATTERN, description="The id from the response to the request for the data")
    ]


class FallbackParameters(TypedDict, total=False):
    """How long a list is, and which popular list it falls back to."""

    n: Annotated[Number, Meta(description="Maximum number of items")]
    surface: Annotated[Name, Meta(description="Fall back to the popular list of this surface, such as `home`")]
    segment: Annotated[Name, Meta(description="Fall back to the popular list of this segment, such as `country:GB`")]


class ListParameters(FallbackParameters, total=False):
    """The query of the hot route. Any other parameter is ignored and counted."""

    exclude: Annotated[list[Name], Meta(max_length=EXCLUDED_MAX, description="Item ids to leave out")]
    category: Annotated[Name, Meta(description="Only items of this category")]


class SharedParameters(FallbackParameters, total=False):
    """The query of lists that are nobody's own."""

    tenant: Annotated[Name, Meta(description="The caller's tenant, so that caches can tell tenants apart")]


class HistoryParameters(TypedDict, total=False):
    """The query of what a user met or bought."""

    n: Annotated[Number, Meta(description="Maximum number of items")]
    exclude: Annotated[list[Name], Meta(max_length=EXCLUDED_MAX, description="Item ids to leave out")]
    category: Annotated[Name, Meta(description="Only items of this category")]


class PopularParameters(SharedParameters, total=False):
    """The query of what is popular."""

    category: Annotated[Name, Meta(description="Only items of this category of the catalogue")]


class AccessParameters(TypedDict):
    """The query of a request for a person's data."""

    purpose: Annotated[VisibleName, Meta(description="Why the data is requested; recorded in the audit trail")]


_LATE: Final = "How long to wait for Redis before falling back to a cached popular list"
ListHeaders = TypedDict(
    "ListHeaders",
    {
        "Priority": Annotated[_Urgency, Meta(description="Urgency (RFC 9218), limited by the role")],
        "Freshet-Deadline-Ms": Annotated[_Deadline, Meta(description=_LATE)],
    },
    total=False,
)
"""The headers of the hot route, besides credentials and `If-None-Match`."""
