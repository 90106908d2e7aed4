"""The running job and the evaluator on the same events: the same lists, byte for byte.

Every list of a user and every list of similar items that the job published is made again by the evaluator, from the
events as they were sent and the model that the list names. No field is left out of the comparison. Three of a list's
inputs are no events, and cannot be computed from them, so the evaluator is told what they were:

- `epoch`, when the job was submitted: one number for all lists;
- `at`, the job's clock when it made the list, to which ages of events are counted;
- which popular list the job had read by then, to fill up short lists: the order of its commands in Redis says that.
"""

import functools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec
import numpy as np
import pytest

from adapters.secrets.key_rings import load_key_ring
from evaluation.job_twin import JobRules, ListsTwin, UsersTwin
from evaluation.model_archive import ModelArchive
from jobs.workers import open_store
from models.random_model import random_model
from models.scorer import Scorer
from schemas import topics
from schemas.events import KIND_OF
from schemas.lists import decode_list
from schemas.model_versions import ONLINE, Version
from schemas.pseudonyms import recommendation_ids
from schemas.receipts import ElementReceipt, decode_receipt
from schemas.store import ALL, SimilarList, popular_key, similar_key, user_keys
from schemas.topics import DAY_MS, MINUTE_MS
from tests.support.live import Live, start_live, until
from tests.support.redis_tap import Executed, RedisTap
from udfs.assortment import Assortment
from udfs.frozen_model import FrozenModel
from udfs.online_model import OnlineModel
from udfs.profile import ProfileBounds
from udfs.ranking import ListModel, PopularItems
from udfs.shared_lists import SharedLists
from udfs.state import UserState

USERS: Final = [f"user-{n}" for n in range(12)]
ITEMS: Final = [f"item-{n:05d}" for n in range(1, 41)]
KINDS: Final = ("click", "purchase", "impression", "view")


@pytest.fixture(scope="module", params=["thread", "process"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    settings = {"python.execution-mode": request.param, "execution.checkpointing.interval": "2 s"}
    running = start_live(tmp_path_factory.mktemp("twin"), flink_settings=settings, model=None)
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


class Sent(NamedTuple):
    """An interaction, at a time in ms."""

    user: str
    ts_ms: int
    item: str
    kind: str


class Shoppers:
    """Users whose interactions of the last days arrive now, each user's in the order of time, some of them twice.

    Days, because a list depends on how old events are, in parts of hours.
    """

    def __init__(self, shop: Live) -> None:
        self._shop, self._random = shop, np.random.default_rng(7)
        self._at_ms = dict.fromkeys(USERS, time.time_ns() // 1_000_000 - 6 * DAY_MS)
        self.sent: list[Sent] = []
        self.records = 0

    def act(self, rounds: int) -> None:
        """In each round, all users do something at the same time, so that they share elements."""
        for _ in range(rounds):
            records = []
            for user in self._random.permutation(USERS).tolist():
                self._at_ms[user] += int(self._random.integers(1, 90)) * MINUTE_MS
                item = ITEMS[min(int(self._random.exponential(9)), len(ITEMS) - 1)]
                kind = str(self._random.choice(KINDS, p=[0.5, 0.2, 0.2, 0.1]))
                self.sent.append(Sent(user, self._at_ms[user], item, kind))
                event = self._shop.event(user, item, kind, ts=self._at_ms[user])
                records += [(user.encode(), event)] * (2 if self._random.random() < 0.1 else 1)
            self.records += self._shop.send(topics.INTERACTIONS, records)
            time.sleep(0.15)


class Recorder(threading.Thread):
    """Keeps what the learner publishes, as a service beside the job would."""

    def __init__(self, shop: Live) -> None:
        super().__init__(name="recorder", daemon=True)
        self._store, self._stopping = open_store(shop.settings, 1), threading.Event()
        self.archive = ModelArchive()

    def run(self) -> None:
        """The thread's main function."""
        while not self._stopping.wait(0.5):
            self.archive.record(self._store)  # more often than the whole model is replaced

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        self.join()
        self.archive.record(self._store)


class Published(NamedTuple):
    """A user's list as the job wrote it to Redis, and the popular list that it had read before, if any."""

    pseudonym: str
    raw: bytes
    popular: bytes | None


def similar_lists(commands: list[Executed], shop: Live) -> list[SimilarList]:
    """All lists of similar items, in the order in which they were written."""
    item_of = {similar_key(shop.settings.redis.prefix, item).encode(): item for item in ITEMS}
    sets = (one.words for one in commands if one.in_script and one.words[0] == b"SET" and one.words[1] in item_of)
    return [SimilarList(item_of[key], decode_list(raw).v, raw) for _, key, raw, *_ in sets]


def published(commands: list[Executed], shop: Live) -> list[Published]:
    """All lists of users, in the order in which they were written."""
    prefix = shop.settings.redis.prefix
    user_of = {user_keys(prefix, name)[0].encode(): name for name in map(shop.pseudonymiser.user, USERS)}
    popular, stored, found = popular_key(prefix, ALL).encode(), None, list[Published]()
    read: dict[str, bytes | None] = {}
    for client, (name, key, *values), in_script in (one for one in commands if len(one.words) > 1):
        if in_script and name == b"SET" and key == popular:
            stored = values[0]
        elif in_script and name == b"SET" and key in user_of:
            found.append(Published(user_of[key], values[0], read.get(client)))
        elif not in_script and name == b"GET" and key == popular:
            read[client] = stored
    return found


class Models(NamedTuple):
    """What lists are made by: what the learner published, and the folder of the frozen model with its name in lists."""

    archive: ModelArchive
    folder: Path
    frozen: str

    def named(self, name: str, bounds: ProfileBounds) -> ListModel:
        """The model that lists call `name`."""
        if kind_of(name) == ONLINE:
            return self.archive.model(name)
        assert name == self.frozen
        return FrozenModel(Scorer.open(self.folder), name, bounds)


def kind_of(model: str) -> str:
    return ONLINE if model.partition("@")[0] == ONLINE else "frozen"


class Differing(NamedTuple):
    """A list of the job and that of the evaluator; `kind` is the model's."""

    kind: str
    published: bytes
    evaluated: bytes


class Evaluator:
    """Makes lists from interactions, with the rules of the job or, to see that it matters, with others."""

    def __init__(self, shop: Live, sent: list[Sent], models: Models, rules: JobRules) -> None:
        ring = load_key_ring(shop.product.endpoints["key_ring"])
        self._rules, self._ids = rules, recommendation_ids(ring)
        self._model = functools.cache(lambda name: models.named(name, rules.profile))
        self._states: dict[tuple[str, int], UserState] = {}
        users = UsersTwin(rules.profile)
        for one in sent:
            name = shop.pseudonymiser.user(one.user)
            users.take(name, one.ts_ms, [one.item], [KIND_OF[one.kind]], user_bit=0)
            state = users.state_of(name)
            assert state is not None
            self._states[name, state.version] = state

    def list_like(self, one: Published) -> bytes:
        """The list for the same version of the same user, at the same time."""
        made = decode_list(one.raw)
        popular = PopularItems() if one.popular is None else PopularItems.of(decode_list(one.popular))
        twin = ListsTwin(self._rules, self._model(made.model), popular, made.epoch, self._ids)
        lists = twin.lists({one.pseudonym: self._states[one.pseudonym, made.v]}, made.at)
        return lists[0].payload if lists else b""

    def similar_like(self, one: SimilarList) -> bytes:
        """The items similar to the same one, by the model that the list names."""
        made, rules = decode_list(one.payload), self._rules
        model = self._model(made.model)
        assert isinstance(model, OnlineModel)
        shared = SharedLists(rules.learn, rules.popularity, made.epoch, ONLINE, Assortment())
        shared.note(model.tables.whole())
        lists = {other.item: other.payload for other in shared.similar(model.tables, made.at)}
        return lists.get(one.item, b"")

    def differing(self, found: list[Published]) -> list[Differing]:
        """The lists that this evaluator makes otherwise."""
        pairs = ((one.raw, self.list_like(one)) for one in found)
        return [Differing(kind_of(decode_list(raw).model), raw, made) for raw, made in pairs if raw != made]


def freshet_model(shop: Live, *words: str) -> str:
    command = [sys.executable, "-m", "freshet", "model", *words, "--settings", str(shop.product.settings_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(shop: Live) -> set[tuple[str, int]]:
    """Users and versions of the lists that receipts report as written."""
    told = [decode_receipt(record.value) for record in shop.records(topics.RECEIPTS, isolation="read_uncommitted")]
    lists = [one for receipt in told if isinstance(receipt, ElementReceipt) for one in receipt.lists]
    return {(one.pseudonym, one.version) for one in lists if one.outcome == "written"}


def rules_of(shop: Live) -> JobRules:
    settings = shop.settings
    return JobRules(settings.lists, settings.profile, settings.refresh, settings.learn, settings.popularity)


def with_another_decay(rules: JobRules) -> JobRules:
    half_life_ms = rules.profile.recents_half_life_ms // 2
    return rules._replace(profile=msgspec.structs.replace(rules.profile, recents_half_life_ms=half_life_ms))


def without_exclusions(rules: JobRules) -> JobRules:
    return rules._replace(lists=msgspec.structs.replace(rules.lists, exclude_recent=0, exclude_had=False))


@pytest.mark.promise("evaluation-equals-job")
def test_every_published_list_is_the_one_that_the_evaluator_makes(shop: Live, tmp_path: Path) -> None:
    shop.consent(USERS)
    random_model(tmp_path / "model", items=len(ITEMS), neighbours=8)
    version = freshet_model(shop, "push", str(tmp_path / "model")).strip()
    name, _, digest = version.partition("/")
    shoppers = Shoppers(shop)
    with RedisTap(shop.product.endpoints["redis"]) as tap, Recorder(shop) as recorder:
        shoppers.act(rounds=14)
        freshet_model(shop, "load", version)
        freshet_model(shop, "activate", version)
        shoppers.act(rounds=8)
        shop.wait_until_accounted(shoppers.records)
        # What follows the last checkpoint is processed twice.
        shoppers.act(rounds=3)
        shop.stack.kill_task_manager()
        shoppers.act(rounds=6)
        shop.wait_until_accounted(shoppers.records)
        freshet_model(shop, "activate", ONLINE)
        shoppers.act(rounds=14)
        shop.wait_until_accounted(shoppers.records)
        reported = written(shop)
        found = until(lambda: everything(shop, tap, reported), "all lists that receipts report")
    models = Models(recorder.archive, tmp_path / "model", Version(name, digest).short)

    def differing(rules: JobRules) -> list[Differing]:
        return Evaluator(shop, shoppers.sent, models, rules).differing(found)

    lists = [decode_list(one.raw) for one in found]
    personal = Counter(kind_of(one.model) for one in lists if one.reason == "personalised")
    assert personal[ONLINE] > 100 and personal["frozen"] > 60, personal
    assert len({one.model for one in lists}) > 2, "the online model went on learning"
    assert len({one.epoch for one in lists}) == 1
    rules = rules_of(shop)
    assert differing(rules) == []
    similar, evaluator = similar_lists(tap.commands(), shop), Evaluator(shop, shoppers.sent, models, rules)
    assert len(similar) > 100
    assert [one for one in similar if evaluator.similar_like(one) != one.payload] == []
    # The comparison can fail: other rules give other lists, of either kind of model.
    for kind, skew in (("frozen", with_another_decay), (ONLINE, without_exclusions)):
        assert sum(pair.kind == kind for pair in differing(skew(rules))) > 20, kind


def everything(shop: Live, tap: RedisTap, reported: set[tuple[str, int]]) -> list[Published]:
    """All published lists, once every list that is reported is among them."""
    found = published(tap.commands(), shop)
    return found if reported <= {(one.pseudonym, decode_list(one.raw).v) for one in found} else []
