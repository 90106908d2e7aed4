"""`freshet rebucket`: from the savepoint of a stopped job, one that a job with another number of buckets restores.

Offline: it reads and writes files, and needs no cluster. It streams through the users, so its memory grows by the due
index only (26 bytes for each user), and by what knows the users' buckets (:mod:`privacy.user_routes`).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from adapters.kafka.opening import open_producer
from adapters.secrets.signing_keys import load_signing_key
from jobs.deployment import Deployment, complaint_about_snapshot, decode_pins, encode_pins
from jobs.flink import bucket_keys
from jobs.registration import Registration, newest_readable, raise_if, recent_heads
from jobs.savepoint_files import (
    KeyedSource,
    KeyGroupFile,
    NewSavepoint,
    SavepointFolder,
    open_file_systems,
    put_list_state,
    with_keyed_state,
)
from jobs.savepoint_format import PYTHON_STATE, Entry, KeyFormat
from jobs.settings import Settings
from jobs.snapshots import IDENTITY_STATE, check_age, completed_at_ms
from schemas import topics
from schemas.audit import SignedHead
from schemas.errors import SettingsError
from schemas.progress import on_progress
from schemas.pseudonyms import kid_of
from udfs.audit_chain import Author, ChainHead, sign_head
from udfs.rebucketing import (
    KIDS,
    LISTS,
    MAPS,
    USERS,
    VALUES,
    BucketState,
    DividedUsers,
    Place,
    divide,
    ended_chains,
    is_settled,
    may_drop,
)
from udfs.state import decode_state

TAKEN_AT: Final = "taken-at"
"""The line of the guard's identity with the time (ms) at which the snapshot was taken."""
GUARD_UID: Final = "snapshot-guard-v1"
PERSONALISE_UID: Final = "personalise-v1"
BUCKETS_MAX: Final = 1_024
ANSWER_S: Final = 30.0
CLOCKS_DIFFER_MS: Final = 10_000
"""The clocks of TaskManagers may differ by this much; the job signs at least as often, unless nothing happens."""
PROGRESS_EVERY: Final = 2_000
DIVIDING: Final = "dividing users among buckets"
FindRoutes = Callable[[], Callable[[str], int | None]]
"""Reads `consents`; the result maps a pseudonym to its route, or to None if `consents` does not name its user."""


class Rebucketed(NamedTuple):
    """What was done: numbers of buckets, of users placed and dropped, bytes of keyed state read, and seconds."""

    savepoint: str
    before: int
    after: int
    users: int
    dropped: int
    state_bytes: int
    seconds: float


def rebucket(settings: Settings, source: str, target: str, after: int, find_routes: FindRoutes) -> Rebucketed:
    """Write the savepoint `target` for `after` buckets, and record the change. Raises :class:`SettingsError`.

    `settings` are those of the job that wrote `source`. Whatever fails, or ends it, leaves nothing at `target` and the
    deployment as it was recorded.
    """
    begun = time.monotonic()
    open_file_systems()
    with Registration(settings.kafka, settings.transaction_timeout_ms()) as registration:
        recorded = _recorded(registration)
        raise_if(complaint_about_count(recorded, after))
        check_age(source, settings.privacy.snapshots_kept_ms)
        folder = SavepointFolder(source)
        raise_if(complaint_about_kind(folder.was_stopped_with()))
        division = Division(folder, recorded, after)
        raise_if(complaint_about_job(recent_heads(settings.kafka), division.taken_ms))
        routes = None if is_settled(recorded.buckets, after) else find_routes()
        changed = recorded.rebucketed(after)
        with NewSavepoint(target) as written:
            counted = division.write(written, routes)
            put_list_state(division.guard, IDENTITY_STATE, lambda raw: _with_pins(raw, recorded, changed))
            for operator in folder.operators():
                if not operator.getOperatorID().equals(division.operator.getOperatorID()):
                    written.copy(operator)
            _sign_ends(settings, recorded, division)
            written.complete(folder.metadata, completed_at_ms(source))
            _record(registration, settings, changed, written)
    seconds = time.monotonic() - begun
    return Rebucketed(target, recorded.buckets, after, counted.users, counted.dropped, division.source.bytes, seconds)


def _record(registration: Registration, settings: Settings, changed: Deployment, written: NewSavepoint) -> None:
    """Record the change. The savepoint goes only if the record is certain to be the old one."""
    written.keep(True)
    try:
        registration.take(changed, replace=True)
    except BaseException:
        last = newest_readable(settings.kafka).deployment
        written.keep(last is not None and last.buckets == changed.buckets)
        raise


def _recorded(registration: Registration) -> Deployment:
    if registration.recorded is None or registration.newest_is_unreadable:
        raise SettingsError(
            "no submission is recorded in the topic deployment that this release can read: submit the job first"
        )
    return registration.recorded


def complaint_about_count(recorded: Deployment, after: int) -> str | None:
    """Say why the deployment cannot have `after` buckets; None if it can."""
    if after == recorded.buckets:
        return f"this deployment has {after} buckets already: give another number by --buckets"
    if not 1 <= after <= BUCKETS_MAX:
        return f"--buckets is {after}: a job has between 1 and {BUCKETS_MAX}"
    if after > recorded.max_parallelism:
        return (
            f"--buckets is {after}, and job.max_parallelism {recorded.max_parallelism}, which is fixed for the life of "
            "the state: no more buckets than that can each have a place of their own"
        )
    return None


def complaint_about_kind(was_stopped_with: bool) -> str | None:
    """Say so if the job was not stopped with this savepoint; None if it was."""
    if was_stopped_with:
        return None
    return (
        "this savepoint was taken while the job went on, so what it has done since would be done again. Stop it with "
        "`flink stop --type canonical`, and name the savepoint that this writes"
    )


def complaint_about_job(heads: Iterable[SignedHead], taken_ms: int) -> str | None:
    """Say so if the audit trail shows that the job ran on after the savepoint was taken; None if it does not."""
    last_ms = max((head.at for head in heads), default=0)
    if last_ms <= taken_ms + CLOCKS_DIFFER_MS:
        return None
    return (
        f"the job has signed its audit trail {(last_ms - taken_ms) / 1000:.0f} s after this savepoint was taken: what "
        "it has done since would be lost. Stop it with `flink stop --type canonical`, and name the savepoint that this "
        "writes"
    )


def _with_pins(raw: bytes, before: Deployment, after: Deployment) -> bytes:
    """The guard's identity with the new pins; its times stay, so that the savepoint is no younger than it was."""
    held = decode_pins(raw.decode())
    return encode_pins({**{name: held[name] for name in held.keys() - before.pins().keys()}, **after.pins()}).encode()


def _sign_ends(settings: Settings, recorded: Deployment, division: "Division") -> None:
    """Sign the ends of chains that no job goes on with: no later record would prove their last records."""
    if not division.ended:
        return
    key = load_signing_key(settings.audit.signing_key)
    producer = open_producer(settings.kafka)
    try:
        for bucket, head in division.ended:
            author = Author(key, head.epoch, recorded.trail, settings.audit.heads_every_ms)
            _, signed = sign_head(head, bucket, division.taken_ms, author)
            producer.send(settings.kafka.topic(topics.AUDIT_HEADS), value=signed).get(ANSWER_S)
    finally:
        producer.close()


class Counted(NamedTuple):
    """How many users were placed, and how many dropped."""

    users: int
    dropped: int


class Division:
    """The keyed state of `personalise` in a savepoint, to be divided among `after` buckets.

    Raises :class:`SettingsError` if the savepoint is not canonical, or not of the `recorded` deployment.
    """

    def __init__(self, folder: SavepointFolder, recorded: Deployment, after: int) -> None:
        self._folder, self._before, self._after = folder, recorded.buckets, after
        self.guard = _expect(folder, GUARD_UID)
        self.taken_ms = 0
        put_list_state(self.guard, IDENTITY_STATE, lambda raw: self._checked(raw, recorded))
        self.operator = _expect(folder, f"{PERSONALISE_UID}-{recorded.mode}")
        self.source = KeyedSource(self.operator)
        self._stored = PYTHON_STATE[recorded.mode]
        self._format = KeyFormat(self.source.max_parallelism)
        self._old_keys = {key: bucket for bucket, key in enumerate(bucket_keys(self._before, recorded.max_parallelism))}
        self._new_keys = bucket_keys(after, recorded.max_parallelism)
        self._new_groups = [_key_group(key, recorded.max_parallelism) for key in self._new_keys]
        self._states: dict[int, BucketState] = {bucket: BucketState() for bucket in range(self._before)}
        self._divided = DividedUsers()
        self.ended: list[tuple[int, ChainHead]] = []

    def _checked(self, raw: bytes, recorded: Deployment) -> bytes:
        """`raw`, the guard's identity, if it is that of the recorded deployment."""
        held = decode_pins(raw.decode())
        raise_if(complaint_about_snapshot(held, recorded.pins()))
        self.taken_ms = max(self.taken_ms, int(held.get(TAKEN_AT, 0)))
        return raw

    def write(self, written: NewSavepoint, routes: Callable[[str], int | None] | None) -> Counted:
        """Write the keyed state into new files, and refer to them from the savepoint's metadata."""
        place = self._placing(routes)
        files = [
            KeyGroupFile(written, f"bucket-{bucket}", group, self.source)
            for bucket, group in enumerate(self._new_groups)
        ]
        counted = self._write_users(files, place)
        self.ended = ended_chains(self._states, self._after)
        states = divide(self._states, self._before, self._after, self._divided, place)
        for bucket, state in states.items():
            for entry in self._entries(bucket, state):
                files[bucket].add(entry)
        handles = {group: file.handle() for group, file in zip(self._new_groups, files, strict=True)}
        used = {group: handle for group, handle in handles.items() if handle is not None}
        self._folder.replace(with_keyed_state(self.operator, used, self._after))
        return counted

    def _placing(self, routes: Callable[[str], int | None] | None) -> Place:
        before, after = self._before, self._after
        if routes is None:
            return lambda pseudonym, bucket: bucket % after

        def place(pseudonym: str, bucket: int) -> int | None:
            route = routes(pseudonym)
            if route is None:
                return None
            if route % before != bucket:
                raise SettingsError(
                    "a user is in another bucket than their id belongs to: the key ring, or job.buckets, is not that "
                    "of the job that wrote this savepoint"
                )
            return route % after

        return place

    def _write_users(self, files: list[KeyGroupFile], place: Place) -> Counted:
        """Write each user below the key of the new bucket as they come, and collect all else."""
        users = dropped = unknown = 0
        prefix = self._stored.prefix
        number, timers = self._number(USERS), self.source.timers()
        names = {number: name.removeprefix(prefix) for name, number in self.source.states.numbers.items()}
        read = 0
        for entry in self.source.entries():
            read += len(entry.key) + len(entry.value)
            if entry.state == timers:
                key, at_ms = self._format.split_timer(entry.key)
                self._states[self._bucket(key)].timers.add(at_ms)
                continue
            key, own = self._format.split(entry.key)
            bucket = self._bucket(key)
            if entry.state != number:
                self._keep(names[entry.state], self._states[bucket], own, entry.value)
                continue
            pseudonym = self._stored.decode_key(own)
            state = decode_state(self._stored.decode_map_value(entry.value))
            goes_to = place(pseudonym, bucket)
            if goes_to is not None:
                self._divided.add(goes_to, pseudonym, kid_of(pseudonym), state.due_slot)
                files[goes_to].add(self._moved(entry, goes_to, own))
                users += 1
            elif may_drop(state):
                dropped += 1
            else:
                unknown += 1
            if (users + dropped) % PROGRESS_EVERY == 0:
                on_progress.get()(DIVIDING, min(1.0, read / max(1, self.source.bytes)))
        if unknown:
            raise SettingsError(
                f"{unknown} users in the savepoint have a consent that `consents` does not hold: without their ids "
                "nobody can say which bucket erasures and withdrawals will look into. Was `consents` emptied, or is "
                "this the key ring of another deployment? Start over with empty state: submit without -s and with "
                "--new-deployment, or choose a number of buckets that divides the present one"
            )
        on_progress.get()(DIVIDING, 1.0)
        return Counted(users, dropped)

    def _bucket(self, key: int) -> int:
        if key not in self._old_keys:
            raise SettingsError("the savepoint has state below a key that is no bucket's: it is not of this deployment")
        return self._old_keys[key]

    def _keep(self, name: str, state: BucketState, own: bytes, value: bytes) -> None:
        if name in VALUES:
            state.values[name] = self._stored.decode_value(value)
        elif name in LISTS:
            state.lists[name] = self._stored.decode_list(value)
        elif name in MAPS:
            state.maps.setdefault(name, {})[self._stored.decode_key(own)] = self._stored.decode_map_value(value)
        else:
            raise SettingsError(
                f"the savepoint has a state {name} that this release does not know how to divide: a later one wrote it"
            )

    def _moved(self, entry: Entry, bucket: int, own: bytes) -> Entry:
        return entry._replace(key=self._format.of(self._new_groups[bucket], self._new_keys[bucket], own))

    def _entries(self, bucket: int, state: BucketState) -> Iterator[Entry]:
        """What a new bucket has besides its users, as stored."""
        group, key, stored = self._new_groups[bucket], self._new_keys[bucket], self._stored
        lists = {**{name: [raw] for name, raw in state.values.items()}, **state.lists}
        for name, raws in lists.items():
            if name != KIDS or self._has(KIDS):  # without counts, the job counts when it is asked
                yield Entry(self._number(name), self._format.of(group, key), stored.encode_list(raws))
        for name, pages in state.maps.items():
            for own, raw in pages.items():
                place = self._format.of(group, key, stored.encode_key(own))
                yield Entry(self._number(name), place, stored.encode_map_value(raw))
        for at_ms in sorted(state.timers):
            yield Entry(self.source.timers(), self._format.of_timer(group, key, at_ms), b"")

    def _has(self, name: str) -> bool:
        return self._stored.prefix + name in self.source.states.numbers

    def _number(self, name: str) -> int:
        return self.source.states.of(self._stored.prefix + name)


def _expect(folder: SavepointFolder, uid: str) -> Any:
    operator = folder.operator(uid)
    if operator is None:
        raise SettingsError(f"the savepoint has no operator {uid}: it is not of this job, or of another execution mode")
    return operator


def _key_group(key: int, max_parallelism: int) -> int:
    from pyflink.java_gateway import get_gateway

    gateway = get_gateway()
    row = gateway.new_array(gateway.jvm.Object, 1)
    row[0] = key
    assign = gateway.jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment.assignToKeyGroup
    return int(assign(gateway.jvm.org.apache.flink.types.Row.of(row), max_parallelism))
