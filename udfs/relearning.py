"""Learns the online model anew from stored events, by the rules of the job: for after an erasure.

What a user has taught cannot be taken out of sums; learning again without their events can leave it out.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from models.online.learner import Learner
from models.online.learner_state import BLOCK_ROWS, encode_blocks, encode_head
from models.online.lessons import sum_lessons
from models.online.score_weights import Gradients
from schemas.consents import Level
from schemas.store import RELEARNED_HEAD
from udfs.elements import EventRecord
from udfs.learning import TRAIN, LearnSettings, Teaching
from udfs.online_model import OnlineModel
from udfs.profile import Outcome, ProfileBounds, take
from udfs.ranking import ListRules
from udfs.state import UserState, decode_state, encode_state

EVENTS_PER_UPDATE: Final = 2_000
"""What the job learns in a second when it is busy."""
EVENTS_PER_ELEMENT: Final = 25


class Relearning:
    """Call `take` with all events, then hand `state` over. Users are kept as their bytes in state: 1 to 2 KB each."""

    def __init__(self, bounds: ProfileBounds, rules: ListRules, settings: LearnSettings) -> None:
        self._learner = Learner(settings.items_max, settings.items_max)
        self._bounds, self._rules = bounds, rules
        self._model = OnlineModel()
        self._users: dict[str, bytes] = {}
        self._taken = 0

    @property
    def items(self) -> int:
        """Items that have been learned."""
        return len(self._learner.index)

    def state(self) -> Iterator[tuple[str, bytes]]:
        """What the learner is to go on from, by the parts of :func:`schemas.store.relearned_key`, the head last."""
        blocks = range(-(-len(self._learner.ids) // BLOCK_ROWS))
        for block in blocks:
            yield str(block), encode_blocks(self._learner, [block])[block]
        yield RELEARNED_HEAD, b"%d:%b" % (len(blocks), encode_head(self._learner))

    def take(self, events: Sequence[EventRecord]) -> None:
        """Learn `events` of users who allow training, in the order of their append times."""
        begin = 0
        while begin < len(events):
            # In a shop with few events, weights need updates to learn from, too.
            some = events[begin : begin + min(EVENTS_PER_UPDATE, max(EVENTS_PER_ELEMENT, self._taken // 10))]
            begin, self._taken = begin + len(some), self._taken + len(some)
            lessons, gradients = [], Gradients()
            for first in range(0, len(some), EVENTS_PER_ELEMENT):
                teaching = self._taught(some[first : first + EVENTS_PER_ELEMENT])
                lessons += teaching.lessons(self._users)
                gradients.add(self._model.gradients(teaching.examples(self._users), self._rules))
            if lessons:
                update = self._learner.learn([sum_lessons(lessons, gradients)], some[-1].append_ts)
                self._model.apply([update])

    def _taught(self, events: Sequence[EventRecord]) -> Teaching:
        teaching, states = Teaching(), dict[str, UserState]()
        for event in events:
            state = states.get(event.pseudonym)
            if state is None:
                raw = self._users.get(event.pseudonym)
                state = UserState(Level.FULL, TRAIN) if raw is None else decode_state(raw)
                states[event.pseudonym] = state
            before = teaching.before(state, event)
            if take(state, event, self._bounds) == Outcome.MOVED and before is not None:
                teaching.accepted(event, before)
        self._users.update((pseudonym, encode_state(state)) for pseudonym, state in states.items())
        return teaching
