"""Why a list has its items: which recent item each depends on most, and what speaks for it beside other candidates.

Nothing is estimated. The model ranks the history again without each recent item: an item of the list is there because
of the one without which it scores lowest.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from models.online.blend_graph import FEATURE_NAMES
from schemas.exploration import ExploredSlot
from schemas.lists import item_fragment
from udfs.online_model import OnlineModel
from udfs.ranking import CANDIDATES_MAX, ListModel, ListRules
from udfs.state import Profile

MATTERS: Final = 1e-4
"""Scores that differ by less are the same: lists have four decimal places."""
EXPERTS: Final = ("follows", "popular", "new", "own")
"""What speaks for an item: people met it after or with the user's items; it is popular; it is new; the user met it."""
_EXPERT_OF: Final = dict.fromkeys(FEATURE_NAMES, "follows") | {
    name: expert
    for expert, names in {
        "popular": [name for name in FEATURE_NAMES if name.startswith(("log popularity", "popularity"))],
        "new": ["log age"],
        "own": ["1 / place in history", "in history", "own count", "in history / length", "newest of history"],
    }.items()
    for name in names
}


class ItemReason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an item is in a list.

    `because` is the recent item on which it depends most, null if on none. `score` is the model's, null if the item is
    none of its candidates: it fills up the list, or a rule of the shop put it there. `without` is the score without
    that recent item, null if the item is then no candidate any more. `expert` is what speaks for it most. `drawn` is
    the probability with which it was drawn by chance, null if it was not.
    """

    item: str
    score: float | None = None
    because: str | None = None
    without: float | None = None
    expert: str | None = None
    drawn: float | None = None


def explain(
    items: Sequence[str], profile: Profile, model: ListModel, rules: ListRules, now_ms: int
) -> list[ItemReason]:
    """The reasons for `items`, in their order, in a list that `model` made for `profile`."""
    recents = [item for item, _, _ in profile.recents]
    without = [_without(profile, item) for item in recents]
    every = msgspec.structs.replace(rules, items=CANDIDATES_MAX)
    ranked = model.ranked([profile, *without], every, now_ms)
    scores = [
        dict(zip(model.fragments[rows[kept]].tolist(), found[kept].tolist(), strict=True))
        for found, rows, kept in zip(ranked.scores, ranked.rows, ranked.kept, strict=True)
    ]
    experts = experts_of(profile, model, rules) if isinstance(model, OnlineModel) else {}
    return [_reason(item, recents, scores, experts.get(item)) for item in items]


def with_draws(reasons: Sequence[ItemReason], explored: Sequence[ExploredSlot]) -> list[ItemReason]:
    """`reasons` of a list's items, in their order, with the draws of its explored slots."""
    drawn = {slot.position: slot.propensity for slot in explored}
    return [msgspec.structs.replace(reason, drawn=drawn.get(place)) for place, reason in enumerate(reasons)]


def _reason(item: str, recents: list[str], scores: list[dict[bytes, float]], expert: str | None) -> ItemReason:
    fragment = item_fragment(item)
    mine = scores[0].get(fragment)
    if mine is None:
        return ItemReason(item)
    alone = np.array([found.get(fragment, -np.inf) for found in scores[1:]])
    lowest = int(np.argmin(alone[::-1])) if len(alone) else 0  # of equals, the newest
    place = len(alone) - 1 - lowest
    if not len(alone) or not (len(alone) == 1 or alone.max() - alone[place] > MATTERS):
        return ItemReason(item, _rounded(mine), expert=expert)
    return ItemReason(item, _rounded(mine), recents[place], _rounded(float(alone[place])), expert)


def _rounded(score: float) -> float | None:
    return round(score, 4) if np.isfinite(score) else None


def _without(profile: Profile, item: str) -> Profile:
    """The profile as it would be without this item among the recent ones; that it was met stays known."""
    return msgspec.structs.replace(profile, recents=[one for one in profile.recents if one[0] != item])


def experts_of(profile: Profile, model: OnlineModel, rules: ListRules) -> dict[str, str]:
    """By candidate: the expert whose part of the score is largest, compared with that of the average candidate."""
    names, parts = model.parts(profile, rules)
    by_expert: npt.NDArray[np.float64] = np.stack(
        [
            parts[:, [place for place, name in enumerate(FEATURE_NAMES) if _EXPERT_OF[name] == expert]].sum(axis=1)
            for expert in EXPERTS
        ],
        axis=1,
    )
    best = (by_expert - by_expert.mean(axis=0)).argmax(axis=1)
    return {name: EXPERTS[place] for name, place in zip(names, best.tolist(), strict=True)}
