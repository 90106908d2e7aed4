"""The job without Flink, Kafka and Redis: the rules that its operators call, in their order, on the events of a file.

Time arrives with the events. A user's state is kept as the bytes that the job stores. All users grant all purposes
before their first event.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from models.online.learner import Learner
from models.online.lessons import Lesson, sum_lessons
from models.online.score_weights import Gradients
from models.online.updates import decode_update, encode_update
from schemas.consents import PURPOSES, Level
from schemas.lists import item_fragment
from schemas.recommendation_ids import RecommendationIds
from schemas.store import ALL, ListWrite
from udfs.account import Account
from udfs.due import RefreshSettings
from udfs.elements import ConsentRecord, Element, EventRecord
from udfs.exploring import NO_EXPLORATION, ExploreSettings
from udfs.learning import Example, ExampleBudget, LearnSettings, Teaching
from udfs.online_model import OnlineModel
from udfs.personalise import Users, apply
from udfs.popularity import Popularity, PopularitySettings, PopularityTable, sum_by_segment, weighing
from udfs.profile import ProfileBounds
from udfs.ranking import ListModel, ListRules, PopularItems, Ranker
from udfs.state import UserState

SECOND_MS: Final = 1_000
BUCKET: Final = 0
NO_POPULAR: Final = PopularItems()
ALL_PURPOSES: Final = (1 << len(PURPOSES)) - 1


class JobRules(NamedTuple):
    """The settings of a job that its lists depend on; the defaults are those of the job."""

    lists: ListRules = ListRules()
    profile: ProfileBounds = ProfileBounds()
    refresh: RefreshSettings = RefreshSettings()
    learn: LearnSettings = LearnSettings()
    popularity: PopularitySettings = PopularitySettings()
    explore: ExploreSettings = NO_EXPLORATION


ANY_ITEM: Final = ListRules(exclude_bought=False, exclude_recent=0, exclude_had=False)
"""Lists may have what the user had."""


class Took(NamedTuple):
    """What an element did: accepted events, what they teach, and the states of users whose lists must be made."""

    accepted: list[EventRecord]
    lessons: list[Lesson]
    examples: list[Example]
    moved: dict[str, UserState]


class UsersTwin:
    """The users of a bucket."""

    def __init__(self, bounds: ProfileBounds) -> None:
        self._bounds, self._stored = bounds, dict[str, bytes]()
        self._account, self._records = Account(), 0

    def state_of(self, name: str) -> UserState | None:
        """What the job keeps of a user."""
        return Users(self._stored.get).get(name)

    def forget(self, name: str) -> None:
        """Delete the profile of a user who has been idle too long; the consent stays."""
        users = Users(self._stored.get)
        users.get_or_new(name).profile = None
        users.mark(name)
        self._stored.update(users.writes())

    def take(self, name: str, ts_ms: int, items: Sequence[str], kinds: Sequence[int], user_bit: int) -> Took:
        """Apply what a user did at one moment, as one element."""
        element = Element(BUCKET)
        if name not in self._stored:
            element.consents.append(self._grant(name, ts_ms))
        element.events += [
            self._event(name, ts_ms, item, kind, user_bit) for item, kind in zip(items, kinds, strict=True)
        ]
        return self.apply(element)

    def apply(self, element: Element) -> Took:
        """Apply an element."""
        users, teaching = Users(self._stored.get), Teaching()
        changes = apply(element, users, self._account, self._bounds, "", teaching)
        self._stored.update(users.writes())
        taught = {event.pseudonym for event in changes.accepted}
        moved = {name: users.get_or_new(name) for name in changes.moved}
        return Took(changes.accepted, teaching.lessons(taught), teaching.examples(taught), moved)

    def _grant(self, name: str, ts_ms: int) -> ConsentRecord:
        self._records += 1
        return ConsentRecord(name, Level.FULL, ALL_PURPOSES, ts_ms, 0, self._records, 0, ts_ms)

    def _event(self, name: str, ts_ms: int, item: str, kind: int, user_bit: int) -> EventRecord:
        self._records += 1
        event = self._records.to_bytes(8, "big")
        return EventRecord(name, event, kind, ts_ms, ts_ms, 0, self._records, user_bit, item, None, (), b"", schema_v=1)


class ListsTwin:
    """Lists of a model, and what is popular to fill them up.

    `epoch` is the submission time that they name. Without `ids`, which need the key ring of a job, they have no
    recommendation id.
    """

    def __init__(
        self,
        rules: JobRules,
        model: ListModel,
        fallback: PopularItems = NO_POPULAR,
        epoch: int = 0,
        ids: RecommendationIds | None = None,
    ) -> None:
        self.model, self._rules = model, rules
        self._ranker = Ranker(rules.lists, rules.profile, epoch, ids, explore=rules.explore)
        self._popular = PopularTwin(rules.popularity, fallback)

    def note(self, accepted: Sequence[EventRecord]) -> None:
        """Count accepted events for what is popular."""
        self._popular.note(accepted)

    def lists(self, users: dict[str, UserState], now_ms: int) -> list[ListWrite]:
        """The lists of `users` at `now_ms`, as the job writes them."""
        ttl_ms = self._rules.refresh.list_ttl_ms
        return self._ranker.rank(users, self.popular(now_ms), self.model, now_ms, ttl_ms)

    def popular(self, now_ms: int) -> PopularItems:
        """What fills up lists at `now_ms`."""
        return self._popular.items(now_ms)


class PopularTwin:
    """`popular:all` as the operator `popular` publishes it: one second after the events."""

    def __init__(self, settings: PopularitySettings, fallback: PopularItems) -> None:
        self._settings, self._fallback, self._items = settings, fallback, fallback
        self._table, self._waiting = PopularityTable(Popularity(), settings), list[EventRecord]()
        self._changed = False

    def note(self, accepted: Sequence[EventRecord]) -> None:
        """Accepted events."""
        self._waiting += accepted

    def items(self, now_ms: int) -> PopularItems:
        """What was published by `now_ms`."""
        ready = [event for event in self._waiting if _published_ms(event.append_ts) <= now_ms]
        if ready:
            self._waiting = self._waiting[len(ready) :]
            sums = sum_by_segment(weighing(ready), self._settings.half_life_ms)
            self._table.merge([each for each in sums if each.segment == ALL], now_ms)
            top = self._table.top()
            ids, weights = [item for item, _ in top], [round(weight, 4) for _, weight in top]
            self._items = PopularItems(ids, list(map(item_fragment, ids)), weights).followed_by(self._fallback)
        return self._items


def _published_ms(at_ms: int) -> int:
    """When the operators have published what happened at `at_ms`: sums leave a bucket at the end of a second, and are
    merged at the end of the next."""
    return (at_ms // SECOND_MS + 2) * SECOND_MS


class LearnerTwin:
    """The operator `learn`, and the model that follows what it publishes, as bytes."""

    def __init__(self, rules: JobRules) -> None:
        self.model, self._lists = OnlineModel(), rules.lists
        self.learner = Learner(rules.learn.items_max, rules.learn.pair_rows_max)
        self._waiting: deque[Second] = deque()
        self._budget = ExampleBudget()

    def follow(self, now_ms: int) -> None:
        """Apply what was published by `now_ms`."""
        while self._waiting and self._waiting[0].published_ms <= now_ms:
            second = self._waiting.popleft()
            sums = sum_lessons(second.lessons, second.gradients)
            self.model.apply([decode_update(encode_update(self.learner.learn([sums], second.published_ms)))])

    def learn(self, took: Took, now_ms: int) -> None:
        """Take the lessons of an element at `now_ms`, which must not go back; first follow."""
        if not took.lessons:
            return
        if not self._waiting or self._waiting[-1].published_ms != _published_ms(now_ms):
            self._waiting.append(Second(_published_ms(now_ms), [], Gradients()))
        second = self._waiting[-1]
        examples = took.examples[: self._budget.left(BUCKET, now_ms)]
        second.gradients.add(self.model.gradients(examples, self._lists))
        self._budget.spend(BUCKET, now_ms, len(examples))
        second.lessons.extend(took.lessons)


class Second(NamedTuple):
    """What a second taught, and when that is published."""

    published_ms: int
    lessons: list[Lesson]
    gradients: Gradients


def bit_of(user: int) -> int:
    """One of 64 bits for a user of a file, spread like the keyed hash of the job."""
    return (user * 2654435761 >> 7) & 63
