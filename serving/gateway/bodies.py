"""The bodies of the gateway's responses, and of requests that are no records: the OpenAPI document describes them."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.events import ItemId
from serving.gateway.parameters import N_DEFAULT, Name, Number

CART_MAX: Final = 50


class Cart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items that somebody is about to buy, and how many are wanted to go with them; no user.

    `surface` and `segment` name the popular lists to fall back to.
    """

    items: Annotated[list[ItemId], Meta(min_length=1, max_length=CART_MAX)]
    n: Number = N_DEFAULT
    surface: Name | None = None
    segment: Name | None = None


class Acknowledged(msgspec.Struct, omit_defaults=True):
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


class EventResult(msgspec.Struct, omit_defaults=True):
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


class Health(msgspec.Struct, omit_defaults=True):
    """Liveness or readiness.

    `redis` is `up`, `away` or `closed`. Closed means that Redis may be older than acknowledged withdrawals, after a
    restart, a failover or a flush: everybody gets popular lists until the job has caught up. `complaints` name problems
    of its configuration.
    """

    status: str
    redis: str | None = None
    complaints: list[str] | None = None
