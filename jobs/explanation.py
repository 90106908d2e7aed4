"""Explains the list of a user: reads it from Redis, and their state from the running job, and ranks again."""

import time
from typing import Any, Final

import msgspec
import numpy as np

from adapters.kafka.job_session import state_of
from adapters.redis.client import always, connect
from adapters.redis.store import RedisStore
from adapters.secrets.key_rings import load_key_ring
from jobs.settings import Settings
from jobs.workers import open_store
from models.online.tables import Tables
from models.online.updates import decode_update
from models.scorer import Scorer
from schemas.control import AccessCommand
from schemas.errors import ModelError
from schemas.lists import RecommendationList, decode_list
from schemas.pseudonyms import Pseudonymiser
from schemas.store import user_keys
from udfs.explaining import ItemReason, explain, with_draws
from udfs.frozen_model import FrozenModel
from udfs.had_items import ENTRY
from udfs.online_model import ONLINE, OnlineModel
from udfs.ranking import ListModel
from udfs.state import Profile

UPDATES_MAX: Final = 10_000


class Explanation(msgspec.Struct, frozen=True):
    """Why a list has its items.

    `model` is the one that explains, `made_by` the one that made the list. `exact`: both are the same, and the user's
    history is the one that the list was made for; otherwise, it was made from other tables, or before later events.
    """

    made_by: str
    model: str
    exact: bool
    items: list[ItemReason]


def explain_list(settings: Settings, command: AccessCommand) -> Explanation:
    """Explain the list of the user whom `command` names; it is recorded in the audit trail, like any access.

    Raises :class:`schemas.errors.FreshetError`.
    """
    names = Pseudonymiser(load_key_ring(settings.privacy.key_ring)).all(command.user_id)
    found = _list_of(settings, names)
    state = msgspec.json.decode(state_of(settings.kafka, command).state)
    if found is None or state is None or state["profile"] is None:
        raise ModelError("the user has no list of their own: nothing of it can be explained")
    model = _model_of(settings, found.model)
    reasons = explain(
        [item.id for item in found.items],
        _profile(state["profile"]),
        model,
        settings.lists,
        time.time_ns() // 1_000_000,
    )
    exact = model.name == found.model and state["version"] == found.v
    return Explanation(found.model, model.name, exact, with_draws(reasons, found.explored))


def _list_of(settings: Settings, names: list[str]) -> RecommendationList | None:
    client = connect(settings.redis)
    try:
        keys = [user_keys(settings.redis.prefix, name)[0] for name in names]
        raws = client.run(always([(key, ("GET", key)) for key in keys]))
    finally:
        client.close()
    return next((decode_list(raw) for raw in raws if raw is not None), None)


def _model_of(settings: Settings, made_by: str) -> ListModel:
    """The model that made a list, as near as it can be had."""
    if made_by.startswith(f"{ONLINE}@"):
        return _online_at(open_store(settings, 1), int(made_by.partition("@")[2]))
    remote = settings.model.remote
    if remote.url is not None and made_by == remote.name():
        raise ModelError(
            f"the list was made by {made_by}, the model on the inference server (model.remote): its lists cannot be "
            "explained, because the server would have to score the history once for each recent item. Lists that the "
            "local model makes can be; a list names the model that made it"
        )
    directory = settings.model.frozen_directory()
    if directory is None:
        raise ModelError(f"the list was made by {made_by}, which these settings do not name: set model.directory")
    scorer = Scorer.open(directory)
    if scorer.manifest.name != made_by:
        raise ModelError(f"the list was made by {made_by}, and model.directory has {scorer.manifest.name}")
    return FrozenModel(scorer, scorer.manifest.name, settings.profile)


def _online_at(store: RedisStore, sequence: int) -> OnlineModel:
    """The online model at `sequence` if Redis still has it, from the last whole model; else, as it is.

    The whole model is written once a minute, and updates stay for two minutes.
    """
    model, whole = OnlineModel(), store.whole_model()
    if whole is None:
        raise ModelError("Redis has no online model at the moment")
    tables = Tables()
    tables.apply(decode_update(whole))
    for _ in range(UPDATES_MAX):
        if tables.sequence == sequence:
            break
        update = store.update_after(tables.sequence).update
        if update is None:
            break
        tables.apply(decode_update(update))
    tables.refresh()
    model.use(tables)
    return model


def _profile(fields: dict[str, Any]) -> Profile:
    """A profile as :func:`udfs.state.readable` shows it, as far as lists depend on it."""
    had = np.array([tuple(entry) for entry in fields["had"]], ENTRY).tobytes()
    recents = [(item, ts, kind) for item, ts, kind in fields["recents"]]
    return Profile(recents, list(fields["bought"]), newest_ts=fields["newest_ts"], had=had)


_SPEAKS: Final = {
    "follows": "people met it with items of this user",
    "popular": "it is popular",
    "new": "it is new",
    "own": "the user met it before",
}


def in_words(found: Explanation) -> str:
    """An explanation as lines of text."""
    lines = [f"list made by {found.made_by}, explained by {found.model}"]
    if not found.exact:
        lines.append("not exact: the model, or the history, has changed since the list was made")
    for place, reason in enumerate(found.items, 1):
        by_chance = [] if reason.drawn is None else [f"drawn by chance, with probability {reason.drawn:.3f}"]
        if reason.score is None:
            told = by_chance or ["fills up the list, or a rule of the shop put it there"]
            lines.append(f"{place:3} {reason.item}: {told[0]}")
            continue
        told = [f"because of {reason.because}"] if reason.because is not None else ["because of no single recent item"]
        if reason.because is not None:
            told.append("without it " + ("no candidate" if reason.without is None else f"{reason.without:.4f}"))
        if reason.expert is not None:
            told.append(_SPEAKS[reason.expert])
        told += by_chance
        lines.append(f"{place:3} {reason.item} {reason.score:.4f}: {', '.join(told)}")
    return "\n".join(lines)
