"""What the online model knows at the moment, read from Redis as scorers read it."""

import msgspec

from jobs.settings import Settings
from jobs.workers import open_store
from models.online.blend_graph import FEATURE_NAMES
from models.online.score_weights import SHARED
from models.online.tables import Tables
from schemas.errors import ModelError
from udfs.online_model import OnlineModel

READING_EPOCH = 0
"""Of a store that writes nothing."""


class OnlineStatus(msgspec.Struct):
    """`name` as lists contain it; `at_ms`: the time of the last update. `weights`: by feature, those that histories of
    all lengths share. `neighbours`: of one item, best first, if one was asked for."""

    name: str
    at_ms: int
    items: int
    items_with_neighbours: int
    weights: dict[str, float]
    neighbours: list[str] | None = None


def online_status(settings: Settings, item: str | None = None) -> OnlineStatus:
    """The model that the job of `settings` has published; raises :class:`ModelError` if there is none, or no `item`."""
    store, model = open_store(settings, READING_EPOCH), OnlineModel()
    try:
        model.follow(store)
    finally:
        store.client.close()
    tables = model.tables
    if tables.sequence == 0:
        raise ModelError(
            "no online model is published: the job publishes one when it has learned from events of users who grant "
            "`train`; look at model.kind in its settings, and at `freshet status`"
        )
    weights = dict(zip(FEATURE_NAMES, tables.score_weights[SHARED].round(4).tolist(), strict=True))
    neighbours = None if item is None else _neighbours(tables, item)
    paired = int(tables.feed["neighbours"].any(axis=1).sum())
    return OnlineStatus(model.name, tables.at_ms, len(tables.index), paired, weights, neighbours)


def _neighbours(tables: Tables, item: str) -> list[str]:
    row = tables.index.get(item)
    if row is None:
        raise ModelError(f"the online model does not know the item {item}: it is known from its second user on")
    return [tables.ids[other] for other in tables.feed["neighbours"][row].tolist() if other]
