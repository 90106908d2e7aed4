"""A bucket with its topics, checkpoints, savepoints and store, and the faults that can happen to them.

Topics are lists, and a snapshot contains its positions in them, so that a replay reads exactly what came after. Output
that a crash discards was never committed. Users have raw names here; the running job's ring makes the pseudonyms.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from adapters.redis.scripts import READ_LIST, WITHDRAW
from adapters.redis.store import RedisStore
from privacy.rules.audit_proof import Line
from privacy.rules.audit_verify import Finding, Times, Verification, verify
from schemas.errors import StoreUnavailable
from schemas.lists import RecommendationList, decode_list
from schemas.store import all_user_keys, proof_of, user_keys
from schemas.topics import DAY_MS
from tests.support.bucket import Bucket, side
from tests.support.fakes import TOKEN, Keyed, MemoryStore
from tests.support.oracle import NONE, Decision
from tests.support.redis_server import RealRedis
from tests.support.trails import TRUST
from tests.support.vocabulary import BEGINNING, a_consent, a_reject, an_interaction
from udfs.elements import BucketMark, ConsentRecord, EventRecord
from udfs.operators.audit_keeper import AUDIT, AUDIT_HEADS
from udfs.operators.outputs import CLEAN_EVENTS
from udfs.ranking import ListRules, PopularItems
from udfs.state import UserState, decode_state

ITEMS_MAX = 400
TOMBSTONE_MS = 8 * DAY_MS
LEVELS = ("none", "session", "full")


class Click(NamedTuple):
    """An interaction with a unique item, so that every trace of it can be found. Ingest rejects a bad one."""

    user: str
    at: int
    ts: int
    item: str
    session: str | None
    bad: bool = False


class Position(NamedTuple):
    """How far each topic was read."""

    clicks: int = 0
    consents: int = 0
    control: int = 0
    marks: int = 0


class Snapshot(NamedTuple):
    """A checkpoint or savepoint; `at` in ms."""

    keyed: Keyed
    position: Position
    at: int


class Ring(NamedTuple):
    """The key ids of a key ring."""

    current: int = 1
    previous: int | None = None

    def names(self, user: str) -> list[str]:
        """The pseudonyms of `user`, the current one first."""
        return [f"p{kid}.{user}" for kid in (self.current, self.previous) if kid is not None]


class EchoModel:
    """A model that returns the items it was given, so that a list shows what it was made from."""

    wanted: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.items = ["", *(f"item-{number}" for number in range(ITEMS_MAX))]
        self.index = {item: row for row, item in enumerate(self.items) if row}

    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        """See :class:`udfs.ranking.Scoring`."""
        return np.where(items > 0, 1.0, -np.inf).astype(np.float32), items.astype(np.int64)


class Backing(Protocol):
    """Where a world's lists are stored, as readers and frontends see it."""

    def store_of(self, epoch: int) -> Any: ...
    def now_ms(self) -> int: ...
    def pass_ms(self, ms: int) -> None: ...
    def read(self, pseudonym: str) -> RecommendationList | None: ...
    def consent(self, pseudonym: str) -> Any: ...
    def withdraw(self, pseudonym: str, said_at: int, erase: bool) -> None: ...
    def end_tombstones(self) -> None: ...
    def held(self) -> Any: ...
    def go_back_to(self, held: Any) -> None: ...


class InMemory:
    """The fake store, with a manual clock."""

    has_time = True

    def __init__(self) -> None:
        self._now_ms = BEGINNING
        self._store = MemoryStore(BEGINNING, self.now_ms)

    def store_of(self, epoch: int) -> Any:
        return self._store.at_epoch(epoch)

    def now_ms(self) -> int:
        return self._now_ms

    def pass_ms(self, ms: int) -> None:
        self._now_ms += ms

    def read(self, pseudonym: str) -> RecommendationList | None:
        return self._store.list_of(pseudonym)

    def consent(self, pseudonym: str) -> Any:
        return self._store.consent(pseudonym)

    def withdraw(self, pseudonym: str, said_at: int, erase: bool) -> None:
        self._store.withdraw(pseudonym, said_at, erase)

    def end_tombstones(self) -> None:
        self._store.end_tombstones(self._now_ms - TOMBSTONE_MS)

    def held(self) -> Any:
        return self._store.held()

    def go_back_to(self, held: Any) -> None:
        self._store.go_back_to(held)


class InRedis:
    """The real store on a real server with the machine's clock, which advances by itself, and slowly."""

    has_time = False

    def __init__(self, server: RealRedis) -> None:
        server.client.flushall()
        self._client: Any = server.client
        self._store_client = server.store_client()
        self._stores: dict[int, RedisStore] = {}

    def store_of(self, epoch: int) -> Any:
        return self._stores.setdefault(epoch, RedisStore(self._store_client, epoch, TOMBSTONE_MS))

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def pass_ms(self, ms: int) -> None:
        end = self.now_ms() + ms
        while self.now_ms() < end:
            pass

    def read(self, pseudonym: str) -> RecommendationList | None:
        found = self._client.eval(READ_LIST.text, 3, *user_keys("", pseudonym), proof_of(TOKEN))
        return None if found is None else decode_list(found[0])

    def consent(self, pseudonym: str) -> Any:
        return self._client.get(user_keys("", pseudonym)[1])

    def withdraw(self, pseudonym: str, said_at: int, erase: bool) -> None:
        keys = all_user_keys("", pseudonym)
        self._client.eval(WITHDRAW.text, 4, *keys, said_at, "erase" if erase else "none", TOMBSTONE_MS)


class Unsteady:
    """A store whose next calls fail as in `faults`: "before" doing anything, or "after", losing the reply."""

    def __init__(self, backing: Any) -> None:
        self.faults: list[str] = []
        self.epoch = 0
        self.outage_max_ms = 3_600_000
        self._backing = backing

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            fault = self.faults.pop(0) if self.faults else None
            if fault == "before":
                raise StoreUnavailable("the call was lost")
            answer = getattr(self._backing.store_of(self.epoch), name)(*arguments, **more)
            if fault == "after":
                raise StoreUnavailable("the answer was lost")
            return answer

        return call


class WorldBucket(Bucket):
    """A bucket whose lists contain exactly what the model was given."""

    rules = ListRules(items=50, exclude_bought=False, exclude_recent=0, exclude_had=False)
    fallback = PopularItems()

    def new_model(self) -> Any:
        return EchoModel()


class World:
    """One bucket and everything around it. `emitted_clean` has the clean events of the last step."""

    def __init__(self, backing: Any) -> None:
        self.backing = backing
        self.store = Unsteady(backing)
        self.bucket = WorldBucket(self.store, backing.now_ms())
        self.ring = self.job_ring = Ring()
        self.relinked_at = 0
        self.clicks: list[Click] = []
        self.consents: list[Decision] = []
        self.control: list[str] = []
        self.marks: list[tuple[int, str]] = []
        self.dumps: list[Any] = []
        self.position = self.furthest = Position()
        self.directs: list[Decision] = []
        self.placed: set[int] = set()
        self.pending: list[Any] = []
        self.lines: list[bytes] = []
        self.heads: list[bytes] = []
        self.emitted_clean: list[dict[str, Any]] = []
        self.restarted_at = self.fired_at = self.forgot_at = 0
        self.named: set[str] = set()
        self.went_back = False
        self.checkpoint_held = self._snapshot()
        self.savepoints: list[Snapshot] = []

    # time

    @property
    def now(self) -> int:
        return int(self.backing.now_ms())

    def tick(self) -> int:
        """A moment later than all earlier ones."""
        self.backing.pass_ms(1)
        self.bucket.keyed.now_ms = self.now
        return self.now

    def pass_time(self, ms: int) -> None:
        """Advance the clock; due timers fire."""
        end = self.now + ms
        while self.bucket.keyed.timers and (timer := min(self.bucket.keyed.timers)) <= end:
            self.backing.pass_ms(max(0, timer - self.now))
            self._note(self.bucket.harness.advance_to(max(timer, self.bucket.keyed.now_ms)))
        self.backing.pass_ms(end - self.now)
        self.bucket.keyed.now_ms = self.fired_at = self.now

    # topics

    def click(self, user: str, session: str | None, late_ms: int) -> None:
        at = self.tick()
        self.clicks.append(Click(user, at, at - late_ms, f"item-{len(self.clicks)}", session))

    def click_again(self, which: int) -> None:
        self.clicks.append(self.clicks[which]._replace(at=self.tick()))

    def click_badly(self) -> None:
        self.clicks.append(Click("", self.tick(), 0, "", None, bad=True))

    def say(self, user: str, level: int, said_ms_ago: int = 0, expires_in_ms: int = 0, **more: Any) -> int:
        """Append a consent change; returns its offset."""
        at = self.tick()
        until = at - said_ms_ago + expires_in_ms if expires_in_ms and (level or more.get("purposes")) else 0
        self.consents.append(Decision(user, at, level, at - said_ms_ago, expires_at=until, **more))
        return len(self.consents) - 1

    def withdraw_directly(self, user: str, erase: bool) -> Decision:
        """Write a frontend's fence; returns the record to append."""
        at = self.tick()
        for name in self.ring.names(user):
            self.backing.withdraw(name, at, erase)
        decision = Decision(user, at, NONE, at, erase=erase, direct=True)
        self.directs.append(decision)
        return decision

    def append_withdrawal(self, fence: Decision, placed: bool) -> None:
        """The frontend's steps after its fence: append to the topic, then write the position to Redis."""
        self.consents.append(fence._replace(at=self.tick(), direct=False))
        offset = len(self.consents) - 1
        if placed:
            self.placed.add(offset)
            for name in self.ring.names(fence.user):
                self.backing.store_of(self.store.epoch).write([self._consent(offset, name)], [], False, "")

    def read(self, clicks: int, consents: int, control: int) -> None:
        """Process one element with that many records of each topic, or as many as there are."""
        start = self.position
        end = Position(
            min(len(self.clicks), start.clicks + clicks),
            min(len(self.consents), start.consents + consents),
            min(len(self.control), start.control + control),
            start.marks,
        )
        met = [token for before, token in self.marks[start.marks :] if before <= end.consents]
        end = end._replace(marks=start.marks + len(met))
        if end == start:
            return
        read = range(start.clicks, end.clicks)
        events = [self._event(offset) for offset in read if not self.clicks[offset].bad]
        rejects = [a_reject(offset=offset) for offset in read if self.clicks[offset].bad]
        changes = [self._consent(offset) for offset in range(start.consents, end.consents)]
        users = {self.clicks[offset].user for offset in read if not self.clicks[offset].bad}
        users |= {change.user for change in self.consents[start.consents : end.consents]}
        users |= set(self.control[start.control : end.control])
        links = {names[0]: names[1] for user in sorted(users) if len(names := self.job_ring.names(user)) == 2}
        self.tick()
        self.position = end
        self.furthest = Position(*map(max, self.furthest, end))
        self.named |= users
        if changes:
            self.fired_at = 0
        marks = [BucketMark(token, 0, 1) for token in met]
        self._note(self.bucket.take(*events, *changes, links=links, rejects=rejects, marks=marks))

    def read_all(self) -> None:
        self.read(len(self.clicks), len(self.consents), len(self.control))

    def _event(self, offset: int) -> EventRecord:
        click = self.clicks[offset]
        name, item = self.job_ring.names(click.user)[0], click.item
        return an_interaction(
            name, click.ts, item, id=item, session=click.session, appended=click.at, offset=offset, user_bit=1
        )

    def _consent(self, offset: int, name: str | None = None) -> ConsentRecord:
        said = self.consents[offset]
        return a_consent(
            name or self.job_ring.names(said.user)[0],
            LEVELS[said.level],  # type: ignore[arg-type]
            said.at,
            offset=offset,
            expires_at=said.expires_at,
            purposes=said.purposes,
            said_at=said.said_at,
            erase=said.erase,
            absent=said.absent,
        )

    # outputs

    def _note(self, emitted: list[Any]) -> None:
        self.pending += emitted
        self.emitted_clean += side_lines(emitted)

    def _commit(self) -> None:
        for tag, held in ((AUDIT, self.lines), (AUDIT_HEADS, self.heads)):
            told = [out[1] for out in self.pending if isinstance(out, tuple) and out[0] is tag]
            held += [line for joined in told for line in joined.split(b"\n")]
        self.pending = []

    def findings(self) -> list[Finding]:
        """The findings in the committed audit trail.

        If a job starts from a snapshot that is not the last one, a few unsigned records are left over. They cannot be
        distinguished from inserted ones, so they are findings.
        """
        found = self.verified().findings
        return [each for each in found if not (self.went_back and "that was only seconds older" in each.text)]

    def verified(self) -> Verification:
        """The committed audit trail, verified."""
        lines, heads = ([Line(0, n, raw) for n, raw in enumerate(kept)] for kept in (self.lines, self.heads))
        return verify(lines, heads, TRUST, Times(0))

    # faults

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.bucket.keyed.snapshot(), self.position, self.now)

    def checkpoint(self) -> None:
        self._commit()
        self.checkpoint_held = self._snapshot()

    def savepoint(self) -> None:
        self.checkpoint()
        self.savepoints.append(self.checkpoint_held)

    def crash(self) -> None:
        """The same job continues from its last checkpoint."""
        self._go_on_from(self.checkpoint_held, self.bucket.epoch)

    def submit(self, snapshot: Snapshot) -> None:
        """A new job continues from `snapshot`, however the previous one was stopped."""
        self.went_back |= snapshot is not self.checkpoint_held
        self._go_on_from(snapshot, self.tick())
        self.checkpoint_held = snapshot

    def _go_on_from(self, snapshot: Snapshot, epoch: int) -> None:
        self.pending, self.position, self.job_ring = [], snapshot.position, self.ring
        self.bucket.restart(snapshot.keyed, epoch)
        self.named, self.restarted_at, self.fired_at = set(), self.tick(), 0

    def outlive_tombstones(self) -> None:
        """Expire tombstones, once no older snapshot is left and no older record can be reread."""
        self.read_all()
        self.pass_time(TOMBSTONE_MS + 1)
        self.savepoints = []
        self.checkpoint()
        self.backing.end_tombstones()

    def dump(self) -> None:
        """A snapshot of Redis, or a replica that lags from here on."""
        self.dumps.append(self.backing.held())

    def redis_goes_back(self, which: int) -> None:
        """Redis returns with earlier contents."""
        self.forgot_at = self.tick()
        self.backing.go_back_to(self.dumps[which % len(self.dumps)])

    def watch(self) -> None:
        """A second ends: the bucket checks the generation of Redis, and writes marks if it is another one."""
        self._note(self.bucket.watch())
        self.marks += [(len(self.consents), token) for token in self.bucket.marks_asked_for]
        self.bucket.marks_asked_for.clear()

    # rotation

    def start_rotation(self) -> None:
        """Add a second key: frontends have it at once, the job after its next start."""
        self.ring, self.relinked_at = Ring(self.ring.current + 1, self.ring.current), 0

    def relink(self) -> None:
        """Name every user of `consents`; note when no user is left under the old name."""
        self.control += sorted({change.user for change in self.consents})
        self.read_all()
        if self.job_ring == self.ring and not self.left_under(f"p{self.ring.previous}."):
            self.relinked_at = self.tick()

    def may_end_rotation(self) -> bool:
        kept, old = [self.checkpoint_held, *self.savepoints], f"p{self.ring.previous}."
        states = [self.bucket.keyed, *(snapshot.keyed for snapshot in kept)]
        left = any(name.startswith(old) for keyed in states for name in keyed.states["users-v1"])
        return bool(self.relinked_at) and not left and all(snapshot.at > self.relinked_at for snapshot in kept)

    def end_rotation(self) -> None:
        self.ring = Ring(self.ring.current)

    def left_under(self, prefix: str) -> list[str]:
        return [name for name in self.bucket.keyed.states["users-v1"] if name.startswith(prefix)]

    # knowledge and state

    def known(self, user: str) -> list[Decision]:
        """Everything applied or acknowledged for `user`, in any run of the job."""
        reached = (n for n in range(len(self.consents)) if n < self.furthest.consents or n in self.placed)
        return [d for d in (*(self.consents[n] for n in reached), *self.directs) if d.user == user]

    def read_of(self, user: str) -> list[Decision]:
        """What this run of the job has read, and any erasure that it found in Redis."""
        read = [change for change in self.consents[: self.position.consents] if change.user == user]
        stood = [d for d in self.known(user) if d.erase and self.forgot_at < d.at < self.restarted_at]
        erased = stood if user in self.named else []
        return list(dict.fromkeys([*read, *(each._replace(direct=False) for each in erased)]))

    def appended(self, item: str) -> list[Click]:
        """Each time that the interaction with `item` was sent."""
        return [click for click in self.clicks if click.item == item]

    def states(self) -> Iterable[tuple[str, UserState]]:
        """All users' states, by raw name."""
        for name, raw in self.bucket.keyed.states["users-v1"].items():
            yield name.partition(".")[2], decode_state(raw)

    def everything_kept(self) -> bytes:
        """All bytes of keyed state."""
        states = self.bucket.keyed.states.values()
        maps = [b"".join(k.encode() + v for k, v in state.items()) for state in states if hasattr(state, "items")]
        return b"".join(maps) + b"".join(repr(state.held).encode() for state in states if hasattr(state, "held"))


def side_lines(emitted: list[Any]) -> list[dict[str, Any]]:
    """Clean events, one by one."""
    return [
        clean
        for out in emitted
        if isinstance(out, tuple) and out[0] is CLEAN_EVENTS
        for line in out[1].split(b"\n")
        for clean in side([(CLEAN_EVENTS, line)], CLEAN_EVENTS)
    ]


def of_an_earlier_release(snapshot: Snapshot) -> Snapshot:
    """`snapshot` as by a release without user counts, which left old names in pages of the due index."""
    keyed = snapshot.keyed.snapshot()
    states = keyed.states
    if "w" in states["due-v2"].data:  # slots that wait for their turn: that release had none
        return snapshot
    older, names = states["due-v1"], "\n".join(states["users-v1"].data).encode()
    for key, page in states["due-v2"].data.items():
        older.put(key, page + b"\n" + names if key.isdigit() else page.split(b" ")[0])
    states["due-v2"].data.clear()
    states["kids-v1"].clear()
    return snapshot._replace(keyed=keyed)
