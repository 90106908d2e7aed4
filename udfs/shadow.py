"""A shadow: two models rank the same histories, before their events are applied, and their gains are counted. Pure.

Only users who grant the purpose `measure` at level `full` are tried. What leaves a bucket is how often each pair of
gains occurred (:mod:`models.paired_gains`): no user and no item.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

import msgspec

from models.paired_gains import LISTED, Counts, decode_pairs, encode_pairs, gain_of, no_pairs
from schemas.consents import Level
from schemas.lists import item_fragment
from udfs.elements import EventRecord
from udfs.feedback import MEASURE
from udfs.had_items import counts_of, item_hash
from udfs.profile import WEIGHT_OF_KIND
from udfs.ranking import ListModel, ListRules
from udfs.rollout import Trial
from udfs.state import Profile, UserState

MOMENTS_MAX: Final = 16
"""Histories of an element that are ranked by both models, at most: each costs two lists."""


class Moment(NamedTuple):
    """A history, and the items that its user met next, at one time, of those that a list could have had."""

    pseudonym: str
    profile: Profile
    ts: int
    met: list[str]


class Shadowing:
    """Collects the moments of one element: call `before` with an event, apply it, then call `accepted`."""

    def __init__(self, is_tried: Callable[[str], bool], rules: ListRules) -> None:
        self._is_tried, self._rules = is_tried, rules
        self._moments: dict[str, Moment] = {}

    def before(self, state: UserState | None, event: EventRecord) -> Profile | None:
        """What must be known of the user before `event` is applied; None if the event is no part of a trial."""
        if state is None or state.level != Level.FULL or not state.purposes & MEASURE or state.profile is None:
            return None
        if event.item is None or WEIGHT_OF_KIND[event.kind] == 0.0 or not state.profile.recents:
            return None
        if event.pseudonym in self._moments:
            return self._moments[event.pseudonym].profile
        if len(self._moments) >= MOMENTS_MAX or not self._is_tried(event.pseudonym):
            return None
        profile = state.profile
        return msgspec.structs.replace(profile, recents=list(profile.recents), bought=list(profile.bought))

    def accepted(self, event: EventRecord, before: Profile) -> None:
        """`event` was accepted, and moves lists."""
        assert event.item is not None
        moment = self._moments.get(event.pseudonym)
        if moment is None:
            moment = self._moments[event.pseudonym] = Moment(event.pseudonym, before, event.ts, [])
        if moment.ts == event.ts and not is_left_out(event.item, before, self._rules):
            moment.met.append(event.item)

    def moments(self, users: Collection[str]) -> list[Moment]:
        """The moments of `users` at which a list could have been right."""
        return [moment for name, moment in self._moments.items() if moment.met and name in users]


def is_left_out(item: str, profile: Profile, rules: ListRules) -> bool:
    """Whether the rules leave `item` out of the user's list, so that no model can be right about it."""
    if rules.exclude_bought and item in profile.bought:
        return True
    if rules.exclude_recent and any(item == recent for recent, _, _ in profile.recents[-rules.exclude_recent :]):
        return True
    return rules.exclude_had and item_hash(item) in counts_of(profile.had)["item"]


def gains(model: ListModel, moments: Sequence[Moment], rules: ListRules, now_ms: int) -> list[int]:
    """The gain of the model's list at each moment, in steps. A list that the model leaves empty has none."""
    ranked = model.ranked([moment.profile for moment in moments], rules, now_ms)
    found = []
    for user, moment in enumerate(moments):
        listed = model.fragments[ranked.rows[user][ranked.kept[user]][:LISTED]].tolist()
        found.append(gain_of(listed, {item_fragment(item) for item in moment.met}))
    return found


def compare(
    served: ListModel, other: ListModel, moments: Sequence[Moment], rules: ListRules, now_ms: int
) -> Counts | None:
    """How often each pair of gains occurred; None if one of the models fails: its failures count, not its lists."""
    found = []
    for model in (served, other):
        try:
            found.append(gains(model, moments, rules, now_ms))
        except Exception as error:  # a trial may not stop the job
            model.report_failure(error)
            return None
    counts = no_pairs()
    for pair in zip(*found, strict=True):
        counts[pair] += 1
    return counts


_Packed = tuple[Trial, bytes]
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[_Packed])


def encode_trials(found: dict[Trial, Counts]) -> bytes:
    """Bytes for state, and between operators."""
    return _encoder.encode([(trial, encode_pairs(counts)) for trial, counts in found.items()])


def decode_trials(raw: bytes) -> dict[Trial, Counts]:
    """The counts behind `raw`."""
    return {trial: decode_pairs(pairs) for trial, pairs in _decoder.decode(raw)}


def summed(packed: Sequence[bytes]) -> dict[Trial, Counts]:
    """The sums of several."""
    sums: dict[Trial, Counts] = {}
    for raw in packed:
        for trial, counts in decode_trials(raw).items():
            sums[trial] = sums[trial] + counts if trial in sums else counts
    return sums
