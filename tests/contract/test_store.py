"""The contract of list stores, run on the fake and on Redis. Fakes are trusted because of this suite."""

import itertools
import time
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec
import pytest

from adapters.redis.address import RedisAddress
from adapters.redis.client import RedisClient, always
from adapters.redis.greeting import Command
from adapters.redis.scripts import READ_LIST, WITHDRAW
from adapters.redis.store import RedisStore
from schemas.errors import StoreMisconfigured
from schemas.lists import encode_list, item_fragment
from schemas.store import (
    UPDATE_TTL_MS,
    ConsentOutcome,
    ListWrite,
    PublishOutcome,
    SimilarList,
    Tombstone,
    WriteOutcome,
    all_user_keys,
    online_keys,
    popular_key,
    proof_of,
    similar_key,
    update_key,
    user_keys,
)
from tests.support.documented import job_rights
from tests.support.fakes import TOKEN, MemoryStore
from tests.support.redis_kinds import KINDS, running_kind
from tests.support.redis_server import RealRedis, running_redis
from tests.support.vocabulary import BEGINNING, a_consent, an_erasure, value_of
from udfs.elements import ConsentRecord
from udfs.operators.list_store import ListStore

pytestmark = pytest.mark.privacy

PREFIX = "t."
EPOCH = 1_000
MINUTE = 60_000
TOMBSTONE = 10 * MINUTE
_names = itertools.count()


class Subject(Protocol):
    """A store under test and its contents."""

    store: ListStore

    def at_epoch(self, epoch: int) -> ListStore: ...
    def read(self, user: str) -> dict[str, Any] | None: ...
    def holds_a_list(self, user: str) -> bool: ...
    def withdraw(self, user: str, said_at: int, erase: bool = False) -> None: ...
    def is_gone(self, user: str) -> bool: ...
    def now_ms(self) -> int: ...
    def pass_ms(self, ms: int) -> None: ...


class InMemory:
    """The fake, with a manual clock."""

    def __init__(self) -> None:
        self._now_ms = 10 * MINUTE
        self.store: Any = MemoryStore(EPOCH, self.now_ms)

    def at_epoch(self, epoch: int) -> ListStore:
        return self.store.at_epoch(epoch)

    def read(self, user: str) -> dict[str, Any] | None:
        found = self.store.list_of(user)
        return None if found is None else msgspec.json.decode(msgspec.json.encode(found))

    def holds_a_list(self, user: str) -> bool:
        return self.store.has_list_key(user)

    def withdraw(self, user: str, said_at: int, erase: bool = False) -> None:
        self.store.withdraw(user, said_at, erase)

    def is_gone(self, user: str) -> bool:
        return self.store.is_gone(user)

    def now_ms(self) -> int:
        return self._now_ms

    def pass_ms(self, ms: int) -> None:
        self._now_ms += ms


class InRedis:
    """The real store, on real servers with the machine's clock."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self.client = RedisClient(address, prefix=PREFIX)
        self.store: Any = self.at_epoch(EPOCH)

    def at_epoch(self, epoch: int) -> ListStore:
        return RedisStore(RedisClient(self._address, prefix=PREFIX), epoch, TOMBSTONE)

    def read(self, user: str) -> dict[str, Any] | None:
        keys = user_keys(PREFIX, user)
        found = self._ask(keys[0], READ_LIST(keys, proof_of(TOKEN)))
        return None if found is None else msgspec.json.decode(found[0])

    def holds_a_list(self, user: str) -> bool:
        return self._exists(user_keys(PREFIX, user)[0])

    def withdraw(self, user: str, said_at: int, erase: bool = False) -> None:
        keys = all_user_keys(PREFIX, user)
        self._ask(keys[0], WITHDRAW(keys, said_at, "erase" if erase else "none", TOMBSTONE))

    def is_gone(self, user: str) -> bool:
        return self._exists(user_keys(PREFIX, user)[2])

    def _exists(self, key: str) -> bool:
        return bool(self._ask(key, ("EXISTS", key)))

    def _ask(self, key: str, command: Command) -> Any:
        return self.client.run(always([(key, command)]))[0]

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def pass_ms(self, ms: int) -> None:
        time.sleep(ms / 1000 + 0.005)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module", params=["memory", *KINDS])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisAddress | None]:
    if request.param == "memory":
        yield None
        return
    with running_kind(request.param, tmp_path_factory.mktemp(request.param)) as address:
        yield address


@pytest.fixture
def subject(kind: RedisAddress | None) -> Subject:
    if kind is None:
        return InMemory()
    subject = InRedis(kind)
    subject.client.ask_each(("FLUSHALL",))
    return subject


@pytest.fixture
def ada() -> str:
    return f"p1.ada-{next(_names)}"


def payload(version: int, epoch: int = EPOCH, item: str = "tea") -> bytes:
    return encode_list(version, epoch, b'"m"', 1, "personalised", [item_fragment(item)], [0.5])


def a_list(user: str, version: int, *, under: ConsentRecord | None = None, epoch: int = EPOCH, ttl_ms: int = MINUTE,
           item: str = "tea") -> ListWrite:  # fmt: skip
    consent = value_of(under or a_consent(user))
    return ListWrite(user, version, consent, "personalised", ttl_ms, payload(version, epoch, item), "m")


def consented(store: ListStore, *changes: Any) -> list[ConsentOutcome]:
    return store.write(changes, [], want_popular=False, token=TOKEN).consents


def listed(store: ListStore, *writes: ListWrite) -> list[WriteOutcome]:
    return store.write([], writes, want_popular=False, token=TOKEN).lists


# lists


@pytest.mark.promise("redis-kinds")
def test_list_round_trips(subject: Subject, ada: str) -> None:
    consented(subject.store, a_consent(ada))
    assert listed(subject.store, a_list(ada, 3)) == [WriteOutcome.WRITTEN]
    found = subject.read(ada)
    assert found is not None
    assert (found["v"], found["epoch"], found["items"]) == (3, EPOCH, [{"id": "tea", "score": 0.5}])


@pytest.mark.parametrize(
    ("version", "outcome"), [(4, WriteOutcome.WRITTEN), (3, WriteOutcome.WRITTEN), (2, WriteOutcome.STALE)]
)
def test_newest_version_wins_within_an_epoch_and_equal_overwrites(
    subject: Subject, ada: str, version: int, outcome: WriteOutcome
) -> None:
    consented(subject.store, a_consent(ada))
    listed(subject.store, a_list(ada, 3))
    assert listed(subject.store, a_list(ada, version, item="cup")) == [outcome]
    found = subject.read(ada)
    assert found is not None
    assert found["items"][0]["id"] == ("cup" if outcome == WriteOutcome.WRITTEN else "tea")


def test_versions_compare_as_numbers(subject: Subject, ada: str) -> None:
    consented(subject.store, a_consent(ada))
    assert listed(subject.store, a_list(ada, 9), a_list(ada, 10), a_list(ada, 9)) == [1, 1, 0]
    large = 2**53 - 1
    assert listed(subject.store, a_list(ada, large), a_list(ada, large - 1)) == [1, 0]


def test_later_epoch_always_wins(subject: Subject, ada: str) -> None:
    earlier, later = subject.at_epoch(EPOCH - 1), subject.at_epoch(EPOCH + 1)
    consented(subject.store, a_consent(ada))
    listed(subject.store, a_list(ada, 50))
    assert listed(later, a_list(ada, 1, epoch=EPOCH + 1)) == [WriteOutcome.WRITTEN]
    assert listed(subject.store, a_list(ada, 51)) == [WriteOutcome.STALE]
    assert listed(earlier, a_list(ada, 99, epoch=EPOCH - 1)) == [WriteOutcome.STALE]
    found = subject.read(ada)
    assert found is not None and found["epoch"] == EPOCH + 1


def test_list_expires(subject: Subject, ada: str) -> None:
    consented(subject.store, a_consent(ada))
    listed(subject.store, a_list(ada, 3, ttl_ms=40))
    subject.pass_ms(40)
    assert subject.read(ada) is None
    assert not subject.holds_a_list(ada)


def test_deleting_a_list_keeps_the_consent(subject: Subject, ada: str) -> None:
    consented(subject.store, a_consent(ada))
    listed(subject.store, a_list(ada, 3))
    subject.store.forget([ada, "p1.nobody"])
    assert not subject.holds_a_list(ada)
    assert listed(subject.store, a_list(ada, 4)) == [WriteOutcome.WRITTEN]
    subject.store.forget([])


# consent


def test_no_list_is_written_without_consent(subject: Subject, ada: str) -> None:
    assert listed(subject.store, a_list(ada, 3)) == [WriteOutcome.NO_CONSENT]
    assert not subject.holds_a_list(ada)


@pytest.mark.parametrize("level", ["none", "session"])
def test_list_made_under_another_level_is_refused(subject: Subject, ada: str, level: Any) -> None:
    consented(subject.store, a_consent(ada, level))
    assert listed(subject.store, a_list(ada, 3)) == [WriteOutcome.GONE if level == "none" else WriteOutcome.NO_CONSENT]


def test_list_made_without_consent_is_refused_under_level_none(subject: Subject, ada: str) -> None:
    nothing = a_consent(ada, "none")
    consented(subject.store, nothing)
    assert listed(subject.store, a_list(ada, 3, under=nothing)) == [WriteOutcome.GONE]


def test_consent_is_written_before_the_list_of_the_same_write(subject: Subject, ada: str) -> None:
    written = subject.store.write([a_consent(ada)], [a_list(ada, 1)], want_popular=True, token=TOKEN)
    assert written == ([ConsentOutcome.IN_FORCE], [WriteOutcome.WRITTEN], None)


def test_withdrawal_deletes_the_list_at_once(subject: Subject, ada: str) -> None:
    given = a_consent(ada, offset=1)
    consented(subject.store, given)
    assert listed(subject.store, a_list(ada, 3, under=given)) == [WriteOutcome.WRITTEN]
    assert consented(subject.store, a_consent(ada, "none", offset=2)) == [ConsentOutcome.IN_FORCE]
    assert not subject.holds_a_list(ada)
    assert listed(subject.store, a_list(ada, 4, under=given)) == [WriteOutcome.GONE]


def test_list_from_before_a_withdrawal_is_refused_after_new_consent(subject: Subject, ada: str) -> None:
    """The write of a job restored from a snapshot before the withdrawal."""
    before, again = a_consent(ada, offset=1), a_consent(ada, offset=3)
    consented(subject.store, before, a_consent(ada, "none", offset=2), again)
    assert listed(subject.store, a_list(ada, 9, under=before)) == [WriteOutcome.NO_CONSENT]
    assert listed(subject.store, a_list(ada, 2, under=again)) == [WriteOutcome.WRITTEN]


def test_writing_a_consent_is_idempotent(subject: Subject, ada: str) -> None:
    change = a_consent(ada)
    consented(subject.store, change)
    listed(subject.store, a_list(ada, 3))
    assert consented(subject.store, change) == [ConsentOutcome.IN_FORCE]
    assert subject.read(ada) is not None, "the list was made under it, so it stays"


def test_offset_orders_consents_within_a_partition(subject: Subject, ada: str) -> None:
    first, second = a_consent(ada, at=2_000, offset=9), a_consent(ada, "none", at=1_000, offset=10)
    assert consented(subject.store, first, second, first) == [1, 1, -1], "refused: the user has said no since"
    assert listed(subject.store, a_list(ada, 3, under=first)) == [WriteOutcome.GONE]


def test_append_time_orders_consents_across_partitions(subject: Subject, ada: str) -> None:
    here, there = a_consent(ada, at=1_000, offset=9), a_consent(ada, "none", at=2_000, partition=1, offset=0)
    assert consented(subject.store, here, there, here) == [1, 1, -1]
    assert consented(subject.store, a_consent(ada, at=3_000, offset=10)) == [1]


def test_expired_consent_stops_lists(subject: Subject, ada: str) -> None:
    soon = a_consent(ada, expires_at=subject.now_ms() + 60)
    consented(subject.store, soon)
    assert listed(subject.store, a_list(ada, 3, under=soon)) == [WriteOutcome.WRITTEN]
    subject.pass_ms(60)
    assert subject.read(ada) is None
    assert listed(subject.store, a_list(ada, 4, under=soon)) == [WriteOutcome.NO_CONSENT]


def test_already_expired_consent_allows_nothing(subject: Subject, ada: str) -> None:
    expired = a_consent(ada, expires_at=subject.now_ms() - 1_000)
    consented(subject.store, expired)
    assert listed(subject.store, a_list(ada, 3, under=expired)) == [WriteOutcome.NO_CONSENT]


def test_expired_consent_still_blocks_older_ones(subject: Subject, ada: str) -> None:
    """A restored job reads old consents again: one without an expiry must not come back into force."""
    before, last = a_consent(ada, offset=1), a_consent(ada, offset=2, expires_at=subject.now_ms() + 60)
    again = a_consent(ada, offset=3)
    consented(subject.store, before, last)
    subject.pass_ms(60)
    assert consented(subject.store, before) == [ConsentOutcome.STALE]
    assert listed(subject.store, a_list(ada, 4, under=before)) == [WriteOutcome.NO_CONSENT]
    assert consented(subject.store, again) == [ConsentOutcome.IN_FORCE]
    assert listed(subject.store, a_list(ada, 5, under=again)) == [WriteOutcome.WRITTEN]


def test_list_expires_with_its_consent(server: RealRedis) -> None:
    subject = InRedis(RedisAddress((server.url,)))
    soon = a_consent("p1.soon", expires_at=subject.now_ms() + MINUTE // 2)
    consented(subject.store, soon)
    listed(subject.store, a_list("p1.soon", 1, under=soon))
    assert 0 < server.client.pttl(user_keys(PREFIX, "p1.soon")[0]) <= MINUTE // 2


def test_erasure_deletes_list_and_consent_and_leaves_a_tombstone(subject: Subject, ada: str) -> None:
    given = a_consent(ada, offset=1)
    consented(subject.store, given)
    assert listed(subject.store, a_list(ada, 3, under=given)) == [WriteOutcome.WRITTEN]
    assert consented(subject.store, an_erasure(ada, offset=2)) == [ConsentOutcome.IN_FORCE]
    assert subject.is_gone(ada) and not subject.holds_a_list(ada)
    assert listed(subject.store, a_list(ada, 4, under=given)) == [WriteOutcome.GONE]
    assert consented(subject.store, given) == [ConsentOutcome.REFUSED], "as a restored job reads it again"
    assert subject.is_gone(ada) and subject.read(ada) is None
    assert consented(subject.store, an_erasure(ada, offset=2)) == [ConsentOutcome.IN_FORCE], "the same again"


def test_consent_after_erasure_starts_afresh(subject: Subject, ada: str) -> None:
    before, again = a_consent(ada, offset=1), a_consent(ada, offset=3)
    assert consented(subject.store, before, an_erasure(ada, offset=2), again) == [1, 1, 1]
    assert not subject.is_gone(ada)
    assert listed(subject.store, a_list(ada, 9, under=before)) == [WriteOutcome.NO_CONSENT]
    assert listed(subject.store, a_list(ada, 1, under=again)) == [WriteOutcome.WRITTEN]
    assert consented(subject.store, an_erasure(ada, offset=2)) == [ConsentOutcome.STALE]
    assert subject.read(ada) is not None


def test_last_erasure_is_known_after_new_consent(subject: Subject, ada: str) -> None:
    consented(subject.store, a_consent(ada, offset=1), a_consent("p1.never", offset=1))
    assert subject.store.tombstones([ada, "p1.never"]) == {}
    consented(subject.store, an_erasure(ada, BEGINNING + 5, offset=2, partition=0))
    expected = {ada: Tombstone(BEGINNING + 5, 0, 2, True, BEGINNING + 7)}
    assert subject.store.tombstones([ada, "p1.never"]) == expected
    assert consented(subject.store, a_consent(ada, at=BEGINNING + 8, offset=3)) == [ConsentOutcome.IN_FORCE]
    assert subject.store.tombstones([ada]) == expected
    assert consented(subject.store, an_erasure(ada, BEGINNING + 9, offset=4)) == [ConsentOutcome.IN_FORCE]
    assert subject.store.tombstones([ada]) == {ada: Tombstone(BEGINNING + 9, 0, 4, True, BEGINNING + 13)}
    assert subject.store.tombstones([]) == {}


def test_withdrawal_leaves_a_tombstone_that_a_grant_removes(subject: Subject, ada: str) -> None:
    consented(subject.store, a_consent(ada, offset=1), a_consent(ada, "none", BEGINNING + 5, offset=2, partition=0))
    expected = {ada: Tombstone(BEGINNING + 5, 0, 2, erased=False, said_at=BEGINNING + 7)}
    assert subject.is_gone(ada) and subject.store.tombstones([ada]) == expected
    assert consented(subject.store, a_consent(ada, at=BEGINNING + 9, offset=3)) == [ConsentOutcome.IN_FORCE]
    assert not subject.is_gone(ada) and subject.store.tombstones([ada]) == expected


@pytest.mark.parametrize("wants", ["none", "erase"])
def test_grant_given_before_the_withdrawal_is_refused_when_it_arrives_later(
    subject: Subject, ada: str, wants: str
) -> None:
    consented(subject.store, a_consent(ada, "none", offset=5, said_at=1_000, erase=wants == "erase"))
    for late, said_at in ((6, 999), (7, 1_000)):
        refused = a_consent(ada, offset=late, said_at=said_at)
        assert consented(subject.store, refused) == [ConsentOutcome.REFUSED]
        assert listed(subject.store, a_list(ada, 3, under=refused)) in ([WriteOutcome.NO_CONSENT], [WriteOutcome.GONE])
    newer = a_consent(ada, offset=8, said_at=1_001)
    assert consented(subject.store, newer) == [ConsentOutcome.IN_FORCE]
    assert listed(subject.store, a_list(ada, 3, under=newer)) == [WriteOutcome.WRITTEN]


@pytest.mark.parametrize("token", ["", TOKEN])
def test_grant_at_the_place_of_the_withdrawal_that_it_was_undone_by_is_accepted(
    subject: Subject, ada: str, token: str
) -> None:
    consented(subject.store, a_consent(ada, "none", offset=5, said_at=1_000))
    undone = a_consent(ada, offset=5, said_at=1_000)
    assert subject.store.write([undone], [], False, token).consents == [ConsentOutcome.REFUSED]


@pytest.mark.parametrize("erase", [False, True])
def test_direct_withdrawal_holds_at_once(subject: Subject, ada: str, erase: bool) -> None:
    now = subject.now_ms()
    given = a_consent(ada, at=now - 50, offset=1, said_at=now - 50)
    consented(subject.store, given)
    listed(subject.store, a_list(ada, 3, under=given))
    subject.withdraw(ada, now - 20, erase)
    assert subject.read(ada) is None and not subject.holds_a_list(ada)
    assert subject.is_gone(ada)
    on_its_way = a_consent(ada, at=now - 10, offset=2, said_at=now - 30)
    assert consented(subject.store, given, on_its_way) == [ConsentOutcome.REFUSED, ConsentOutcome.REFUSED]
    appended_after = a_consent(ada, at=now + MINUTE, offset=3, said_at=now - 30)
    assert consented(subject.store, appended_after) == [ConsentOutcome.REFUSED]
    for consent in (given, on_its_way, appended_after):
        assert listed(subject.store, a_list(ada, 9, under=consent)) != [WriteOutcome.WRITTEN]


@pytest.mark.parametrize("erase", [False, True])
@pytest.mark.parametrize("skew_ms", [-MINUTE, 0, MINUTE])
def test_direct_withdrawal_is_replaced_by_its_record_regardless_of_clocks(
    subject: Subject, ada: str, erase: bool, skew_ms: int
) -> None:
    now = subject.now_ms()
    consented(subject.store, a_consent(ada, at=now - 50, offset=1, said_at=now - 50))
    subject.withdraw(ada, now, erase)
    older = a_consent(ada, "none", at=now - 40, offset=2, said_at=now - 40)
    assert consented(subject.store, older) == [ConsentOutcome.STALE], "another one, from before"
    same = a_consent(ada, "none", at=now + skew_ms, offset=4, said_at=now, erase=erase)
    assert consented(subject.store, same) == [ConsentOutcome.IN_FORCE]
    between = a_consent(ada, at=now + 2 * MINUTE, offset=3, said_at=now + 1)
    assert consented(subject.store, between) == [ConsentOutcome.REFUSED]
    again = a_consent(ada, at=now + skew_ms, offset=5, said_at=now + 1)
    assert consented(subject.store, again) == [ConsentOutcome.IN_FORCE]
    assert listed(subject.store, a_list(ada, 1, under=again)) == [WriteOutcome.WRITTEN]


def test_relinking_moves_list_and_consent(subject: Subject) -> None:
    given = a_consent("p1.ada", offset=1)
    consented(subject.store, given, a_consent("p1.bob", offset=1))
    listed(subject.store, a_list("p1.ada", 3, under=given))
    before = subject.read("p1.ada")
    for _ in range(2):
        subject.store.relink({"p2.ada": "p1.ada", "p2.nobody": "p1.nobody"})
        assert subject.read("p2.ada") == before and before is not None
        assert not subject.holds_a_list("p1.ada")
        assert listed(subject.store, a_list("p1.ada", 4, under=given)) == [WriteOutcome.NO_CONSENT]
    renamed = msgspec.structs.replace(given, pseudonym="p2.ada")
    assert listed(subject.store, a_list("p2.ada", 4, under=renamed)) == [WriteOutcome.WRITTEN]
    assert not subject.holds_a_list("p2.nobody") and not subject.is_gone("p2.nobody")


def test_relinking_keeps_decisions_under_the_current_pseudonym(subject: Subject) -> None:
    given = a_consent("p1.ada", offset=1)
    consented(subject.store, given)
    listed(subject.store, a_list("p1.ada", 3, under=given))
    subject.withdraw("p2.ada", subject.now_ms())
    subject.store.relink({"p2.ada": "p1.ada"})
    assert subject.read("p2.ada") is None and not subject.holds_a_list("p1.ada")
    renamed = msgspec.structs.replace(given, pseudonym="p2.ada")
    assert listed(subject.store, a_list("p2.ada", 4, under=renamed)) == [WriteOutcome.GONE]


@pytest.mark.parametrize("came_back", [False, True])
def test_erasure_moves_with_the_user(subject: Subject, came_back: bool) -> None:
    consented(subject.store, an_erasure("p1.ada", BEGINNING, offset=2))
    if came_back:
        assert consented(subject.store, a_consent("p1.ada", at=BEGINNING + 9, offset=3)) == [1]
    subject.store.relink({"p2.ada": "p1.ada"})
    assert subject.store.tombstones(["p1.ada", "p2.ada"]) == {"p2.ada": Tombstone(BEGINNING, 0, 2, True, BEGINNING + 2)}
    assert subject.is_gone("p2.ada") != came_back


def test_ttls_move_with_the_user(server: RealRedis) -> None:
    subject = InRedis(RedisAddress((server.url,)))
    given, no = a_consent("p1.live", offset=1), a_consent("p1.no", "none")
    consented(subject.store, given, no)
    listed(subject.store, a_list("p1.live", 3, under=given))
    subject.store.relink({"p2.live": "p1.live", "p2.no": "p1.no"})
    life = {key: server.client.pttl(key) for key in (*user_keys(PREFIX, "p2.live")[:2], user_keys(PREFIX, "p2.no")[1])}
    assert [0 < ms <= limit for ms, limit in zip(life.values(), (MINUTE, 0, TOMBSTONE), strict=True)] == [
        True,
        False,
        True,
    ]
    assert life[user_keys(PREFIX, "p2.live")[1]] == -1
    assert server.client.keys(f"{PREFIX}{{p1.live}}*") == []


def test_fences_live_as_long_as_a_tombstone(server: RealRedis) -> None:
    subject = InRedis(RedisAddress((server.url,)))
    soon = subject.now_ms() + MINUTE
    consented(
        subject.store,
        a_consent("p1.full"),
        a_consent("p1.soon", at=subject.now_ms(), expires_at=soon),
        a_consent("p1.none", "none"),
        an_erasure("p1.gone"),
    )
    subject.withdraw("p1.direct", BEGINNING)
    life = {name: server.client.pttl(user_keys(PREFIX, f"p1.{name}")[1]) for name in ("full", "soon", "none", "direct")}
    assert life["full"] == -1, "a consent without an end"
    assert TOMBSTONE < life["soon"] <= TOMBSTONE + MINUTE
    for name in ("none", "direct"):
        assert 0 < life[name] <= TOMBSTONE
    assert 0 < server.client.pttl(user_keys(PREFIX, "p1.gone")[2]) <= TOMBSTONE
    assert server.client.keys(f"{PREFIX}{{p1.gone}}*") == [user_keys(PREFIX, "p1.gone")[2].encode()]


def test_users_are_independent(subject: Subject) -> None:
    consented(subject.store, a_consent("p1.a"), a_consent("p1.b"))
    assert listed(subject.store, a_list("p1.a", 9), a_list("p1.b", 1)) == [1, 1]
    consented(subject.store, a_consent("p1.a", "none", at=2**42))
    assert subject.read("p1.b") is not None


# popular lists


def test_popular_lists_are_ordered_and_returned_with_a_write(subject: Subject) -> None:
    def write(epoch: int, version: int, item: str) -> WriteOutcome:
        return subject.store.write_popular("all", epoch, version, MINUTE, payload(version, epoch, item))

    assert write(EPOCH, 5, "tea") == WriteOutcome.WRITTEN
    assert write(EPOCH, 4, "old") == WriteOutcome.STALE
    assert write(EPOCH - 1, 9, "old") == WriteOutcome.STALE
    assert write(EPOCH, 5, "cup") == WriteOutcome.WRITTEN
    assert subject.store.write([], [], want_popular=False, token=TOKEN).popular is None
    popular = subject.store.write([], [], want_popular=True, token=TOKEN).popular
    assert popular is not None and popular.items[0].id == "cup"
    assert write(EPOCH + 1, 1, "jam") == WriteOutcome.WRITTEN


def test_segments_have_separate_popular_lists(subject: Subject) -> None:
    assert subject.store.write_popular("country:NL", EPOCH, 1, MINUTE, payload(1)) == WriteOutcome.WRITTEN
    assert subject.store.write([], [], want_popular=True, token=TOKEN).popular is None


# the online model


def test_updates_of_the_online_model_form_a_chain(subject: Subject) -> None:
    store = subject.store
    assert store.update_after(0) == (None, 0) and store.whole_model() is None
    assert store.publish_update(5, 4, b"no whole model yet") == PublishOutcome.WANTS_WHOLE
    assert store.publish_whole(5, b"whole-5") == PublishOutcome.PUBLISHED
    assert store.publish_update(6, 5, b"update-6") == PublishOutcome.PUBLISHED
    assert store.publish_update(8, 6, b"update-8") == PublishOutcome.PUBLISHED
    assert store.publish_update(9, 7, b"follows nothing") == PublishOutcome.WANTS_WHOLE
    assert store.whole_model() == b"whole-5"
    assert store.update_after(5) == (b"update-6", 8)
    assert store.update_after(6) == (b"update-8", 8)
    assert store.update_after(8) == (None, 8)


def test_newer_deployment_takes_the_online_model_over(subject: Subject) -> None:
    store, newer = subject.store, subject.at_epoch(EPOCH + 1)
    assert store.publish_whole(50, b"old") == PublishOutcome.PUBLISHED
    assert newer.publish_update(51, 50, b"update") == PublishOutcome.WANTS_WHOLE, "of another deployment's model"
    assert newer.publish_whole(40, b"new") == PublishOutcome.PUBLISHED
    assert store.publish_update(60, 50, b"late") == PublishOutcome.OLDER
    assert store.publish_whole(60, b"late") == PublishOutcome.OLDER
    assert (store.whole_model(), store.update_after(0).head) == (b"new", 40)


def test_lists_of_similar_items_are_ordered_each_for_itself(subject: Subject) -> None:
    def write(*versions: int) -> list[WriteOutcome]:
        lists = [SimilarList(f"item-{n}", version, payload(version)) for n, version in enumerate(versions)]
        return subject.store.write_similar(lists, MINUTE)

    assert write(5, 9) == [WriteOutcome.WRITTEN, WriteOutcome.WRITTEN]
    assert write(6, 8, 1) == [WriteOutcome.WRITTEN, WriteOutcome.STALE, WriteOutcome.WRITTEN]


# what only a server can do


def test_list_of_similar_items_expires_and_names_the_item_alone(server: RealRedis) -> None:
    server.client.flushall()
    InRedis(RedisAddress((server.url,))).store.write_similar([SimilarList("tea", 1, payload(1))], MINUTE)
    [key] = server.client.keys()
    assert key == similar_key(PREFIX, "tea").encode()
    assert 0 < server.client.pttl(key) <= MINUTE


def test_user_keys_share_the_prefix_and_one_slot(server: RealRedis) -> None:
    server.client.flushall()
    store = InRedis(RedisAddress((server.url,))).store
    store.write([a_consent("p1.x")], [a_list("p1.x", 1)], want_popular=False, token=TOKEN)
    store.write_popular("all", EPOCH, 1, MINUTE, payload(1))
    assert set(server.client.keys()) == {b"t.{p1.x}:list", b"t.{p1.x}:consent", popular_key(PREFIX, "all").encode()}


def test_updates_of_the_online_model_expire_and_the_whole_does_not(server: RealRedis) -> None:
    server.client.flushall()
    store = InRedis(RedisAddress((server.url,))).store
    store.publish_whole(1, b"whole")
    store.publish_update(2, 1, b"update")
    assert 0 < server.client.pttl(update_key(PREFIX, 1)) <= UPDATE_TTL_MS
    assert [server.client.pttl(key) for key in online_keys(PREFIX)] == [-1, -1]


def test_redis_user_with_documented_rights_can_run_the_job(server: RealRedis) -> None:
    server.client.execute_command("ACL", "SETUSER", "job", "on", ">hush", "~t.*", *job_rights())
    client = RedisClient(RedisAddress((server.url,), username="job"), "hush", prefix=PREFIX)
    store = RedisStore(client, EPOCH, TOMBSTONE)
    ends = a_consent("p1.acl", offset=2, expires_at=InRedis(RedisAddress((server.url,))).now_ms() + MINUTE)
    erased, again = an_erasure("p1.acl", offset=3), a_consent("p1.acl", offset=4)
    assert store.write([ends], [a_list("p1.acl", 1, under=ends)], True, TOKEN)[:2] == ([1], [1])
    assert store.write([erased, again], [a_list("p1.acl", 1, under=again)], True, TOKEN)[:2] == ([1, 1], [1])
    assert list(store.tombstones(["p1.acl"])) == ["p1.acl"]
    store.relink({"p2.acl": "p1.acl"})
    assert store.write_popular("all", EPOCH, 1, MINUTE, payload(1)) == 1
    assert store.publish_whole(1, b"whole") == PublishOutcome.PUBLISHED
    assert store.publish_update(2, 1, b"update") == PublishOutcome.PUBLISHED
    assert (store.whole_model(), store.update_after(1)) == (b"whole", (b"update", 2))
    store.forget(["p1.acl"])
    for _ in range(2):
        client.renew_generation(by_force=True)
    assert client.standing().token is not None
    wrong = RedisClient(RedisAddress((server.url,), username="job"), "wrong", prefix=PREFIX)
    with pytest.raises(StoreMisconfigured, match="WRONGPASS"):
        wrong.standing()
    with pytest.raises(StoreMisconfigured, match=r"NOPERM, keys t\.\*"):
        client.ask_each(("FLUSHALL",))
    client.close()
