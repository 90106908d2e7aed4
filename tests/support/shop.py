"""A bucket whose model learns, and the learner that it teaches, on fakes."""

from typing import Any, Final

from tests.support.bucket import Bucket
from tests.support.fakes import Harness, Keyed
from tests.support.vocabulary import BEGINNING, SECOND, a_consent, an_interaction
from udfs.assortment import Assortment, Unfollowed
from udfs.learning import LearnSettings
from udfs.online_model import OnlineModel
from udfs.operators.learn_operator import LearnOperator, LearnParts
from udfs.operators.learning_keeper import LESSONS
from udfs.popularity import PopularitySettings
from udfs.ranking import ListRules, PopularItems

DEFAULTS: Final = LearnSettings()


class Shop:
    """A bucket whose model learns, and the learner, with one store."""

    def __init__(
        self, learn: LearnSettings = DEFAULTS, users_min: int = 2, assortment: Assortment | None = None
    ) -> None:
        self._learn, self._popularity = learn, PopularitySettings(users_min=users_min)
        self.bucket = OnlineBucket(assortment=assortment)
        self.learner_keyed = Keyed(0, BEGINNING)
        self.start_learner()
        self.lessons: list[bytes] = []
        self.appended = BEGINNING

    def start_learner(self) -> None:
        parts = LearnParts(
            self.bucket.store, self._learn, self._popularity, BEGINNING, Unfollowed(self.bucket.assortment)
        )
        self.learner = Harness(LearnOperator(lambda: parts), self.learner_keyed)

    def consents(self, *users: str, purposes: int = 7) -> None:
        self.bucket.take(*(a_consent(user, purposes=purposes, offset=n) for n, user in enumerate(users)))

    def clicks(self, user: str, *items: str) -> None:
        """One click a second."""
        for item in items:
            self.appended = self.bucket.keyed.now_ms + SECOND
            click = an_interaction(user, self.appended, item, appended=self.appended, user_bit=hash_bit(user))
            self.pass_on(self.bucket.take(click))
            self.pass_time(SECOND)

    def pass_time(self, ms: int) -> None:
        self.pass_on(self.bucket.pass_time(ms))
        self.learner.advance_to(self.bucket.keyed.now_ms)

    def pass_on(self, outputs: list[Any]) -> None:
        for output in outputs:
            if isinstance(output, tuple) and output[0] is LESSONS:
                self.lessons.append(output[1])
                self.learner_keyed.now_ms = max(self.learner_keyed.now_ms, self.bucket.keyed.now_ms)
                self.learner.element(output[1])

    def ids(self, user: str) -> list[str]:
        found = self.bucket.store.list_of(user)
        return [] if found is None else [item.id for item in found.items]


class OnlineBucket(Bucket):
    rules = ListRules(items=4)
    fallback = PopularItems()

    def new_ranking_model(self) -> OnlineModel:
        return OnlineModel()


def hash_bit(user: str) -> int:
    return sum(user.encode()) % 64
