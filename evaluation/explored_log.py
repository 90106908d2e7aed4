"""What an export says of explored slots, and what another model would have chosen there from the same pools.

A model chooses the item of the pool that it ranks highest for the user's history at the moment when the list was made;
if it ranks none of them, the first of the pool. Histories are made by the rules of the job, from the same export.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from evaluation.job_twin import ALL_PURPOSES, ANY_ITEM, BUCKET, UsersTwin
from evaluation.off_policy import Codes, Estimate, Estimates, Log, clicked_rate, estimate
from schemas.consents import Level
from schemas.errors import ModelError
from schemas.exports import ExportedEvent
from schemas.lists import item_fragment
from udfs.elements import ConsentRecord, Element
from udfs.exported_events import record_of
from udfs.profile import ProfileBounds
from udfs.ranking import CANDIDATES_MAX, ListModel
from udfs.state import Profile

EVERY_ITEM: Final = msgspec.structs.replace(ANY_ITEM, items=CANDIDATES_MAX)


class Row(NamedTuple):
    """One impression of an explored slot: who, when the list was made (ms), what, from which pool, and the reward."""

    user: str
    at: int
    slot: int
    shown: str
    propensity: float
    pool: tuple[str, ...]
    clicked: bool


class ExploredLog(NamedTuple):
    """The rows of an export, in no order; `unusable` says nothing of how its item was drawn."""

    rows: list[Row]
    unusable: int


class OffPolicy(NamedTuple):
    """The result: the click rate by chance, and estimates of the policy that serves, and of the new model."""

    impressions: int
    users: int
    clicks: int
    unusable: int
    learned: int
    """Impressions that are left out, because the model may have learned from them."""
    model: str
    known: float
    by_chance: Estimate
    served: Estimates
    new: Estimates


def log_of(events: Iterable[ExportedEvent]) -> ExploredLog:
    """The rows behind `events`: each item of a list once, clicked if any event says so."""
    rows: dict[tuple[str, str | None, str | None], Row] = {}
    unusable = 0
    for event in events:
        if event.propensity is None:
            continue
        pool, item = tuple(event.pool or ()), event.item_id
        if event.slot is None or event.list_at is None or item not in pool or not 0 < event.propensity <= 1:
            unusable += 1
            continue
        place = event.pseudonym, event.request, item
        clicked = event.type == "click" or (place in rows and rows[place].clicked)
        rows[place] = Row(event.pseudonym, event.list_at, event.slot, item, event.propensity, pool, clicked)
    return ExploredLog([*rows.values()], unusable)


def off_policy(events: Sequence[ExportedEvent], model: ListModel, learned_until: int, seed: int) -> OffPolicy:
    """Estimate `model`; raises :class:`ModelError` if the export says too little.

    Only impressions of lists from after `learned_until` (ms) count: of others, the model may know what was clicked.
    """
    explored, unusable = log_of(events)
    if not explored:
        raise ModelError(
            "no event of the export says how its item was drawn: switch exploration on ([explore] slots), and write "
            "the export with --purpose measure"
        )
    rows = [row for row in explored if row.at > learned_until]
    if not rows:
        times = [row.at for row in explored]
        raise ModelError(
            f"no estimate: the model was trained on events until {_utc(learned_until)}, and the last explored list is "
            f"of {_utc(max(times))}: it may know what was clicked. Explore longer, or train on events from before "
            f"{_utc(min(times))} only"
        )
    choices = [*chosen_by(model, rows, events)]
    users, items = _codes(row.user for row in rows), _codes(item for row in rows for item in row.pool)
    log = Log(
        np.array([users[row.user] for row in rows]),
        np.array([row.slot for row in rows]),
        np.array([items[row.shown] for row in rows]),
        np.array([row.propensity for row in rows]),
        np.array([float(row.clicked) for row in rows]),
        len(items),
    )
    served: Codes = np.array([items[row.pool[0]] for row in rows])
    chosen = np.array(
        [items[row.pool[0] if choice is None else choice] for row, choice in zip(rows, choices, strict=True)]
    )
    known = sum(choice is not None for choice in choices) / len(rows)
    new = estimate(log, chosen, served, seed, known)
    by_chance = clicked_rate(log, seed)
    of_served = estimate(log, served, served, seed)
    clicks = int(log.clicked.sum())
    learned = len(explored) - len(rows)
    return OffPolicy(len(rows), len(users), clicks, unusable, learned, model.name, known, by_chance, of_served, new)


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _codes(names: Iterable[str]) -> dict[str, int]:
    return {name: code for code, name in enumerate(dict.fromkeys(names))}


def chosen_by(model: ListModel, rows: Sequence[Row], events: Sequence[ExportedEvent]) -> Iterator[str | None]:
    """What `model` chooses from the pool of each row; None if it ranks none of its items.

    Raises :class:`ModelError` if the model fails.
    """
    histories = _profiles(sorted({(row.user, row.at) for row in rows}), events)
    ranks = {(user, at): _ranks(model, profile, at) for (user, at), profile in histories.items()}
    if model.failed:
        raise ModelError(f"the model failed for {model.failed:,} of {len(ranks):,} lists: see the log")
    for row in rows:
        rank_of = ranks[row.user, row.at].get
        ranked = [(rank, item) for item in row.pool if (rank := rank_of(item_fragment(item))) is not None]
        yield min(ranked)[1] if ranked else None


def _ranks(model: ListModel, profile: Profile, at: int) -> dict[bytes, int]:
    """The place of each item that the model ranks for a profile at a moment."""
    found = model.ranked([profile], EVERY_ITEM, at)
    fragments = model.fragments[found.rows[0][found.kept[0]]].tolist()
    return {fragment: place for place, fragment in enumerate(fragments)}


def _profiles(moments: Sequence[tuple[str, int]], events: Iterable[ExportedEvent]) -> dict[tuple[str, int], Profile]:
    """The profiles of users at moments, from the events that had been appended by then."""
    wanted, told = defaultdict[str, list[int]](list), defaultdict[str, list[ExportedEvent]](list)
    for user, at in moments:
        wanted[user].append(at)
    for event in events:
        if event.pseudonym in wanted:
            told[event.pseudonym].append(event)
    found = {}
    for user, times in wanted.items():
        twin, records = UsersTwin(ProfileBounds()), sorted(told[user], key=lambda event: event.appended)
        twin.apply(Element(BUCKET, consents=[ConsentRecord(user, Level.FULL, ALL_PURPOSES, 1, 0, 1, 0, 1)]))
        done = 0
        for at in times:
            while done < len(records) and records[done].appended <= at:
                twin.apply(Element(BUCKET, [record_of(records[done], done + 1)]))
                done += 1
            state = twin.state_of(user)
            found[user, at] = (state and state.profile) or Profile()
    return found


def lines(found: OffPolicy) -> list[str]:
    """The result as text."""
    told = [
        f"{found.impressions:,} impressions of explored slots, by {found.users:,} users, with {found.clicks:,} clicks",
        f"{found.model} knows an item of {found.known:.0%} of the pools",
        f"{'click rate of explored slots':32}{'IPS':>24}{'SNIPS':>24}{'doubly robust':>24}{'effective':>11}",
        f"{'by chance, as shown':32}{_text(found.by_chance):>24}",
    ]
    for name, each in (("first of the pool, as served", found.served), (found.model, found.new)):
        columns = "".join(f"{_text(one):>24}" for one in (each.ips, each.snips, each.dr))
        told.append(f"{name:32}{columns}{each.effective:11,.0f}")
    gain = found.new.difference
    told.append(f"{found.model} - as served: {gain.value:+.4f}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}")
    if found.learned:
        told.append(f"left out: {found.learned:,} impressions from before the end of what the model was trained on")
    if found.unusable:
        told.append(f"left out: {found.unusable:,} events that do not say how their item was drawn")
    return told


def _text(one: Estimate) -> str:
    return f"{one.value:.4f} ({one.low:.4f}-{one.high:.4f})"


def as_json_value(found: OffPolicy) -> dict[str, Any]:
    """For scripts: see docs/ml/explore.md."""

    def of(each: Estimates) -> dict[str, Any]:
        return {name: one._asdict() if isinstance(one, Estimate) else one for name, one in each._asdict().items()}

    return found._asdict() | {
        "by_chance": found.by_chance._asdict(),
        "served": of(found.served),
        "new": of(found.new),
    }
