"""One bucket of the personalise operator on fakes: process elements, advance time, take and restore snapshots."""

from collections.abc import Callable
from typing import Any

import msgspec

from schemas.answers import StateAnswer, decode_answer
from schemas.errors import ModelError
from schemas.lists import RecommendationList
from schemas.model_versions import DEFAULT, ONLINE
from schemas.receipts import decode_receipt
from schemas.recommendation_ids import RecommendationIds
from tests.support.fakes import TOKEN, DictState, FixedModel, Harness, Keyed, MemoryStore, Value
from tests.support.gathering import gathered
from tests.support.trails import an_author
from tests.support.vocabulary import BEGINNING, DAY, INTERACTIONS
from udfs.account import Account, decode_account
from udfs.assortment import Assortment, Unfollowed
from udfs.due import RefreshSettings
from udfs.elements import ConsentRecord, Element, EventRecord, pack
from udfs.exploring import NO_EXPLORATION, ExploreSettings
from udfs.fallback_model import FallbackModel
from udfs.frozen_model import FrozenModel
from udfs.generations import Caught, encode_caught
from udfs.online_model import OnlineModel
from udfs.operators.gate import OPEN, WriteGate
from udfs.operators.generation_keeper import GenerationParts
from udfs.operators.list_tracer import SpanQueue
from udfs.operators.model_shelf import ModelShelf
from udfs.operators.outputs import ANSWERS, RECEIPTS
from udfs.operators.personalise_operator import PersonaliseOperator, PersonaliseParts
from udfs.popularity import PopularitySettings
from udfs.profile import ProfileBounds
from udfs.ranking import ListRules, PopularItems, Ranker
from udfs.state import UserState, decode_state

BOUNDS = ProfileBounds()
REFRESH = RefreshSettings(active_within_ms=7 * DAY)
POPULARITY = PopularitySettings(half_life_ms=DAY, segments_max=3)
ITEMS = ["tea", "cup", "pot", "jam", "rye", "oil", "salt", "figs"]
EPOCH = BEGINNING
CRASH = "crash"
WATCH_EVERY = 100 * 365 * DAY
"""A bucket with users is watched for ever; here, later than any test lets time pass. See :meth:`Bucket.watch`."""
Record = EventRecord | ConsentRecord


def nothing_to_open(version: str) -> FrozenModel:
    """No version can be opened."""
    raise ModelError(f"there is no {version}")


class FixedUnread:
    """What the job has not read, as a test says."""

    age_ms = records = 0

    def __call__(self) -> int:
        """The age of the oldest consent."""
        return self.age_ms


class Bucket:
    """One bucket with its store. `restart` starts a new operator on a snapshot; the store is not reset."""

    rules = ListRules(items=4, exclude_had=False)
    fallback = PopularItems.ranked(["figs", "salt"])

    def __init__(
        self,
        store: Any = None,
        beginning: int = BEGINNING,
        operator: Callable[[Callable[[], PersonaliseParts]], PersonaliseOperator] = PersonaliseOperator,
        ranker: type[Ranker] = Ranker,
        assortment: Assortment | None = None,
        explore: ExploreSettings = NO_EXPLORATION,
        ids: RecommendationIds | None = None,
        gate: WriteGate = OPEN,
        spans: SpanQueue | None = None,
    ) -> None:
        self.gate, self._spans = gate, spans
        self._operator, self._ranker = operator, ranker
        self.assortment = assortment or Assortment()
        self._explore, self._ids = explore, ids
        self.keyed = Keyed(now_ms=beginning)
        caught = self.keyed.states["generation-v1"] = Value()
        caught.update(encode_caught(Caught(TOKEN)))
        self.marks_asked_for: list[str] = []
        self.unread = FixedUnread()
        self.store = store or MemoryStore(beginning, lambda: self.keyed.now_ms)
        self.epoch = beginning
        self._start()

    def new_model(self) -> Any:
        """The model of a starting operator."""
        return FixedModel(ITEMS)

    def new_ranking_model(self) -> FrozenModel | OnlineModel | FallbackModel:
        """What ranks with it."""
        return FrozenModel(self.model, "fixed")

    def new_shelf(self, model: FrozenModel | OnlineModel | FallbackModel) -> ModelShelf:
        """The models of a starting operator."""
        return ModelShelf({DEFAULT: model}, nothing_to_open, ONLINE)

    def _start(self) -> None:
        self.model, self.store.epoch = self.new_model(), self.epoch
        ranking = self.new_ranking_model()
        parts = PersonaliseParts(
            ranker=self._ranker(self.rules, BOUNDS, self.epoch, self._ids, self.assortment, self._explore),
            shelf=self.new_shelf(ranking),
            store=self.store,
            fallback=self.fallback,
            epoch=self.epoch,
            interactions=INTERACTIONS,
            bounds=BOUNDS,
            refresh=REFRESH,
            popularity=POPULARITY,
            due_users_per_second=5,
            audit=an_author(self.epoch),
            generation=GenerationParts(self.marks_asked_for.append, users_per_second=20, watch_every_ms=WATCH_EVERY),
            unread=self.unread,
            online=ranking if isinstance(ranking, OnlineModel) else None,
            catalogue=Unfollowed(self.assortment),
            remote=ranking if isinstance(ranking, FallbackModel) else None,
            gate=self.gate,
            spans=self._spans,
        )
        self.harness = Harness(self._operator(lambda: parts), self.keyed)

    def restart(self, snapshot: Keyed, epoch: int | None = None) -> None:
        """Continue from `snapshot`, as after a crash, or with a new `epoch`, as after a submission."""
        now_ms, self.keyed = self.keyed.now_ms, snapshot.snapshot()
        self.keyed.now_ms = now_ms
        self.epoch = epoch or self.epoch
        self._start()

    def take(self, *records: Record, **more: Any) -> list[Any]:
        """Process one element with these records."""
        events = [record for record in records if isinstance(record, EventRecord)]
        consents = [record for record in records if isinstance(record, ConsentRecord)]
        self.keyed.now_ms = max([self.keyed.now_ms, *(record.append_ts for record in records)])
        return self.harness.element((100, gathered([(100, pack(Element(3, events, consents, **more)))])))

    def pass_time(self, ms: int) -> list[Any]:
        return self.harness.advance_to(self.keyed.now_ms + ms)

    def watch(self) -> list[Any]:
        """Advance to the second in which the bucket checks the current generation."""
        return list(self.harness.operator.on_timer(WATCH_EVERY, self.keyed))

    @property
    def timers(self) -> set[int]:
        """All timers but the one that watches the generation."""
        return {timer for timer in self.keyed.timers if timer % WATCH_EVERY}

    def run_out_of_timers(self) -> None:
        """Advance until only the watch timer is left."""
        for _ in range(100_000):
            if not self.timers:
                return
            self.harness.advance_to(min(self.timers))
        raise AssertionError("timers without end")

    def user(self, name: str = "ada") -> UserState | None:
        raw = self.keyed.states["users-v1"].get(name)
        return None if raw is None else decode_state(raw)

    def list(self, name: str = "ada") -> RecommendationList | None:
        return self.store.list_of(name)

    @property
    def account(self) -> Account:
        return decode_account(self.keyed.states["account-v1"].value())

    @property
    def pages(self) -> dict[str, bytes]:
        """The pages of the due index."""
        return {**self.keyed.states["due-v1"].data, **self.keyed.states["due-v2"].data}

    @property
    def reads(self) -> int:
        """The number of entries read from map states."""
        return sum(state.reads for state in self.keyed.states.values() if isinstance(state, DictState))


def receipts(emitted: list[Any], kind: type) -> list[Any]:
    told = [decode_receipt(out[1]) for out in emitted if isinstance(out, tuple) and out[0] is RECEIPTS]
    return [receipt for receipt in told if isinstance(receipt, kind)]


def answers(emitted: list[Any]) -> list[StateAnswer]:
    """The answers to requests for a person's data."""
    return [decode_answer(out[1]) for out in emitted if isinstance(out, tuple) and out[0] is ANSWERS]


def side(emitted: list[Any], tag: Any) -> list[Any]:
    return [msgspec.json.decode(out[1]) for out in emitted if isinstance(out, tuple) and out[0] is tag]
