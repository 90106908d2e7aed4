"""The naive twin of the job: ingest, consent, deduplication, profile and account, one record at a time.

Written from the contract, and not from `udfs`: dicts and lists, no tricks, nothing shared with the code under test but
the types of `schemas` and the layout of the compared state. It has no clock, so it does not simulate effects of time
alone (sessions that end, consents that expire without another record).

    twin = NaiveReplay(key_ring, bounds)
    twin.feed((topic, append_ts, offset, key, value) for …)     # `consents` before the `interactions` they allow
    twin.states()   # pseudonym → plain dict, as plain(UserState) gives
    twin.account()  # sent, accepted, duplicates, denied, rejected by reason, …
"""

import base64
import hmac
import math
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, Protocol
from zlib import crc32

import msgspec

from schemas.consents import ConsentChange
from schemas.control import Command, UserCommand
from schemas.events import EVENT_TYPES, Interaction
from schemas.ids import is_id
from schemas.pseudonyms import KeyRing
from schemas.wire.codecs import BadRecord, json_codec
from udfs.state import UserState

DAY_MS: Final = 86_400_000
RECENT_ITEMS_MAX: Final = 20
WEIGHTS: Final = {"view": 1, "click": 1, "dwell": 1, "rating": 2, "add_to_cart": 2, "purchase": 3}
FUTURE_SKEW_MS: Final = 5 * 60_000
YEAR_2000_MS: Final = 946_684_800_000
YEAR_9999_MS: Final = 253_402_300_799_999
LEVELS: Final = {"none": 0, "session": 1, "full": 2}
PURPOSE_BITS: Final = {"personalise": 1, "measure": 2, "train": 4}

Record = tuple[str, int, int, bytes | None, bytes | None]
"""(topic, append_ts, offset, key, value)"""


class Bounds(Protocol):
    """The fields that are read of :class:`udfs.profile.ProfileBounds`."""

    bought_items_max: int
    had_items_max: int
    event_ids_max: int
    dedupe_horizon_ms: int
    session_gap_ms: int
    counts_half_life_ms: int


class NaiveReplay:
    """Feed it records in one order; ask it for states and the account. Topics are known by the end of their names."""

    def __init__(self, key_ring: KeyRing, bounds: Bounds) -> None:
        self._ring = key_ring
        self._bounds = bounds
        self._codec = json_codec()
        self._users: dict[str, NaiveUser] = {}
        self._account: dict[str, Any] = {
            "accepted": 0,
            "duplicates": 0,
            "denied": 0,
            "rejected": {},
            "consents_applied": 0,
            "consents_replayed": 0,
            "others_rejected": 0,
            "unknown_fields": 0,
            "consents_refused": 0,
            "segments_left_out": 0,
            "ignored": 0,
            "extra": 0,
        }
        self._pseudonyms: dict[str, str] = {}

    def feed(self, records: Iterable[Record]) -> "NaiveReplay":
        """Process `records` in order."""
        for topic, append_ts, offset, key, value in records:
            kind = topic.rpartition(".")[2]
            try:
                if kind == "interactions":
                    self._interaction(append_ts, value)
                elif kind == "consents":
                    self._consent(append_ts, offset, key, value)
                else:
                    self._command(value)
            except _Rejected as rejected:
                self._reject(kind, rejected.reason)
            except BadRecord as bad:
                self._reject(kind, bad.reason.value)
        return self

    def states(self) -> dict[str, dict[str, Any]]:
        """The state of each user with a consent on record."""
        return {pseudonym: user.as_dict() for pseudonym, user in self._users.items()}

    def account(self) -> dict[str, Any]:
        """The totals over all buckets, as in :class:`schemas.receipts.AccountTotals`."""
        counted = ("accepted", "duplicates", "denied")
        sent = sum(self._account[name] for name in counted) + sum(self._account["rejected"].values())
        return {"sent": sent, **self._account}

    def pseudonym(self, user_id: str) -> str:
        """The name of `user_id` in states."""
        known = self._pseudonyms.get(user_id)
        if known is None:
            digest = self._hash("user", user_id)[:16]
            text = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            known = self._pseudonyms[user_id] = f"p{self._ring.current}.{text}"
        return known

    def _hash(self, domain: Any, text: str) -> bytes:
        key = bytes.fromhex(self._ring.keys[domain][str(self._ring.current)])
        return hmac.digest(key, text.encode(), "sha256")

    def _reject(self, kind: str, reason: str) -> None:
        if kind == "interactions":
            rejected = self._account["rejected"]
            rejected[reason] = rejected.get(reason, 0) + 1
        else:
            self._account["others_rejected"] += 1

    def _interaction(self, append_ts: int, value: bytes | None) -> None:
        event, unknown_fields = self._codec.interaction(value)  # type: ignore[arg-type]
        if event.ts > append_ts + FUTURE_SKEW_MS or event.ts > YEAR_9999_MS:
            raise _Rejected("time_in_future")
        if event.ts < YEAR_2000_MS:
            raise _Rejected("time_too_old")
        self._account["unknown_fields"] += unknown_fields
        user = self._users.get(self.pseudonym(event.user_id))
        event_id = self._hash("event", event.event_id)[:8]
        session_id = b"" if event.session_id is None else self._hash("session", event.session_id)[:8]
        outcome = "denied" if user is None else user.take(event, append_ts, event_id, session_id, self._bounds)
        if outcome == "too_late":
            raise _Rejected("too_late")
        self._account[outcome] += 1

    def _consent(self, append_ts: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        absent = value is None and bool(key)
        if absent:
            try:
                assert key
                change = ConsentChange(key.decode(), "none", append_ts)
            except UnicodeDecodeError:
                raise _Rejected("bad_encoding") from None
        else:
            try:
                change, unknown_fields = self._codec.consent(value)  # type: ignore[arg-type]
                if key is not None and key != change.user_id.encode() and change.level != "none" and not change.erase:
                    change = ConsentChange(change.user_id, "none", append_ts)
            except BadRecord:
                named = named_in(key, value)
                if named is None:
                    raise
                change, unknown_fields = ConsentChange(named, "none", append_ts), False
            self._account["unknown_fields"] += unknown_fields
        pseudonym = self.pseudonym(change.user_id)
        if change.erase or absent:
            known = self._users.get(pseudonym)
            outcome = "replayed" if known is not None and offset <= known.consent_offset else "applied"
            if outcome == "applied":
                self._users.pop(pseudonym, None)
        else:
            outcome = self._users.setdefault(pseudonym, NaiveUser()).consent(change, append_ts, offset)
        self._account[f"consents_{outcome}"] += 1

    def _command(self, value: bytes | None) -> None:
        try:
            msgspec.json.decode(value or b"", type=Command | UserCommand)
        except (ValueError, RecursionError):
            raise _Rejected("malformed") from None


def named_in(key: bytes | None, value: bytes | None) -> str | None:
    """The user whom an unreadable consent change names, in its JSON or else by its key."""
    try:
        user = msgspec.json.decode(value or b"")["user_id"]
        if not isinstance(user, str) or not 1 <= len(user) <= 256:
            raise ValueError
    except (ValueError, RecursionError, TypeError, KeyError):
        user = (key or b"\0").decode(errors="replace").replace("\ufffd", "\0")
    return user if 1 <= len(user) <= 256 and is_id(user) else None


class _Rejected(Exception):  # noqa: N818
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NaiveUser:
    """All that is known of a user: the consent in force, and, while it allows a profile, their events."""

    def __init__(self) -> None:
        self.level = 0
        self.purposes = 0
        self.consent_at = 0
        self.consent_offset = -1
        self.not_before = 0
        self.expires_at = 0
        self.version = 0
        self.withdrawn_at = 0
        self.kept_for = 0
        self.profile: NaiveProfile | None = None

    def consent(self, change: ConsentChange, append_ts: int, offset: int) -> str:
        """Apply `change` if it is newer than the consent in force. One partition, so offsets order."""
        if offset <= self.consent_offset:
            return "replayed"
        granted = set(PURPOSE_BITS if change.granted is None else change.granted) - set(change.denied or ())
        level = LEVELS[change.level] if "personalise" in granted else 0
        said_at = min(change.ts, append_ts)
        if level > 0 and said_at <= self.withdrawn_at:
            return "refused"
        alone = sum(PURPOSE_BITS[purpose] for purpose in granted) if level == 0 and change.level == "full" else 0
        if said_at < self.withdrawn_at or (said_at == self.withdrawn_at and not self.kept_for):
            alone = 0
        if level == 0:
            self.withdrawn_at = max(self.withdrawn_at, said_at)
        if 0 < self.expires_at <= append_ts and (self.level > 0 or self.kept_for):
            self.level = self.kept_for = 0
            self.profile = None
            self.version += 1
        goes_on_alone = self.level == level == 0 and self.kept_for and alone
        if (self.level == 0 and not goes_on_alone) or level < self.level:
            self.not_before = append_ts
        if level < self.level or not (level or alone):
            self.profile = None
        if (level > 0 or alone) and self.profile is None:
            self.profile = NaiveProfile()
        self.level, self.kept_for = level, alone
        self.purposes = sum(PURPOSE_BITS[purpose] for purpose in granted) if level > 0 else alone
        self.expires_at = (change.expires_at or 0) if self.purposes else 0
        self.consent_at, self.consent_offset = append_ts, offset
        self.version += 1
        return "applied"

    def take(self, event: Interaction, append_ts: int, event_id: bytes, session_id: bytes, bounds: Bounds) -> str:
        """Process `event` if that is allowed, and return the outcome."""
        expired = 0 < self.expires_at <= append_ts
        if not (self.level or self.kept_for) or append_ts < self.not_before or expired:
            return "denied"
        profile = self.profile or NaiveProfile()
        if event_id in profile.event_ids:
            return "duplicates"
        if event.ts < profile.newest_ts - bounds.dedupe_horizon_ms:
            return "too_late"
        if self.level == 1 and profile.session is not None and not profile.is_in_session(event.ts, session_id, bounds):
            if event.ts < profile.newest_ts:
                return "denied"
            profile = NaiveProfile()
        if self.level == 0:
            profile.know(event, append_ts, event_id, bounds)
        else:
            profile.note(event, append_ts, event_id, session_id, bounds)
        self.profile = profile
        self.version += 1
        return "accepted"

    def as_dict(self) -> dict[str, Any]:
        """As :func:`plain` gives a :class:`UserState`."""
        return {
            "level": self.level,
            "purposes": self.purposes,
            "consent_at": self.consent_at,
            "consent_offset": self.consent_offset,
            "not_before": self.not_before,
            "expires_at": self.expires_at,
            "version": self.version,
            "withdrawn_at": self.withdrawn_at,
            "kept_for": self.kept_for,
            "profile": None if self.profile is None else self.profile.as_dict(),
        }


class NaiveProfile:
    """A user's events: all that count are stored, and sums are computed on request."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, int]] = []
        self.recents: dict[str, tuple[int, int, str]] = {}  # item → (newest time, when it was last met, kind)
        self.bought: list[str] = []
        self.had: dict[str, int] = {}  # item → how often it was met, the item met last at the end
        self.event_ids: dict[bytes, int] = {}  # in the order in which they came → the day of the newest event then
        self.newest_ts = 0
        self.active_at = 0
        self.session: dict[str, Any] | None = None
        self.half_life_ms = 0

    def is_in_session(self, ts: int, session_id: bytes, bounds: Bounds) -> bool:
        """Whether an event belongs to the last session: the same id, and no gap before or after it."""
        session, gap = self.session, bounds.session_gap_ms
        assert session is not None
        near = bool(session["started"] - gap <= ts <= session["last"] + gap)
        return near and bool(session["id"] == session_id)

    def note(self, event: Interaction, append_ts: int, event_id: bytes, session_id: bytes, bounds: Bounds) -> None:
        """Remember `event`."""
        self.half_life_ms = bounds.counts_half_life_ms
        self.noted.append((event.type, event.ts))
        self.note_session(event.ts, session_id, bounds)
        self.know(event, append_ts, event_id, bounds)
        if event.item_id is not None and event.type in WEIGHTS:
            self.note_item(event.item_id, event.ts, event.type)
            self.had[event.item_id] = self.had.pop(event.item_id, 0) + 1
            if len(self.had) > bounds.had_items_max:
                del self.had[next(iter(self.had))]
            if event.type == "purchase":
                self.bought = [item for item in self.bought if item != event.item_id] + [event.item_id]
                self.bought = self.bought[-bounds.bought_items_max :]

    def know(self, event: Interaction, append_ts: int, event_id: bytes, bounds: Bounds) -> None:
        """Remember only that the event occurred."""
        self.newest_ts = max(self.newest_ts, event.ts)
        self.event_ids[event_id] = self.newest_ts // DAY_MS
        if len(self.event_ids) > bounds.event_ids_max:
            del self.event_ids[next(iter(self.event_ids))]
        oldest = (self.newest_ts - bounds.dedupe_horizon_ms) // DAY_MS
        self.event_ids = {known: day for known, day in self.event_ids.items() if day >= oldest}
        self.active_at = max(self.active_at, append_ts)

    def note_session(self, ts: int, session_id: bytes, bounds: Bounds) -> None:
        """Add the event to the last session or start a new one; a late event of another session does neither."""
        if self.session is not None and self.is_in_session(ts, session_id, bounds):
            self.session["started"] = min(self.session["started"], ts)
            self.session["last"] = max(self.session["last"], ts)
            self.session["events"] += 1
        elif self.session is None or ts >= self.session["last"]:
            self.session = {"id": session_id, "started": ts, "last": ts, "events": 1}

    def note_item(self, item: str, ts: int, kind: str) -> None:
        """Remember an item's newest time and weightiest kind; drop the oldest items above the limit."""
        if item in self.recents:
            known_ts, _, known_kind = self.recents[item]
            ts = max(ts, known_ts)
            kind = max(kind, known_kind, key=lambda name: (WEIGHTS[name], EVENT_TYPES.index(name)))
        self.recents[item] = (ts, len(self.noted), kind)
        if len(self.recents) > RECENT_ITEMS_MAX:
            del self.recents[min(self.recents, key=lambda name: self.recents[name][:2])]

    def as_dict(self) -> dict[str, Any]:
        """As :func:`plain` gives a :class:`udfs.state.Profile`."""
        in_order = sorted(self.recents.items(), key=lambda entry: entry[1][:2])
        counts = dict.fromkeys(EVENT_TYPES, 0.0)
        for kind, ts in self.noted:
            counts[kind] += 2.0 ** (-(self.newest_ts - ts) / self.half_life_ms)
        return {
            "recents": [(item, ts, EVENT_TYPES.index(kind)) for item, (ts, _, kind) in in_order],
            "bought": self.bought,
            "counts": list(counts.values()),
            "newest_ts": self.newest_ts,
            "active_at": self.active_at,
            "session": self.session,
            "event_ids": b"".join(self.event_ids),
            "had": [(crc32(item.encode()), count) for item, count in self.had.items()],
            "shown": [],
            "explored": [],
            "event_days": list(Counter(self.event_ids.values()).items()),
        }


def plain(state: UserState) -> dict[str, Any]:
    """`state` as a dict of plain values, without its position in the due index and its consent's partition."""
    fields = msgspec.structs.asdict(state)
    del fields["due_slot"], fields["consent_partition"]
    if state.profile is not None:
        profile = fields["profile"] = msgspec.structs.asdict(state.profile)
        profile["had"] = list(struct.iter_unpack("<IH", state.profile.had))
        if state.profile.session is not None:
            profile["session"] = msgspec.structs.asdict(state.profile.session)
    return fields


def plain_answer(state: bytes) -> dict[str, Any]:
    """The same from the `state` of a :class:`schemas.answers.StateAnswer`."""
    fields = msgspec.json.decode(state)
    del fields["due_slot"], fields["consent_partition"]
    if (profile := fields["profile"]) is not None:
        profile["event_ids"] = bytes.fromhex(profile["event_ids"])
        profile["recents"] = [tuple(recent) for recent in profile["recents"]]
        profile["had"] = [tuple(item) for item in profile["had"]]
        profile["event_days"] = [tuple(day) for day in profile["event_days"]]
        if profile["session"] is not None:
            profile["session"]["id"] = bytes.fromhex(profile["session"]["id"])
    return fields  # type: ignore[no-any-return]


def differences(expected: dict[str, dict[str, Any]], actual: dict[str, dict[str, Any]]) -> list[str]:
    """The differences between two sets of states, one line each; decayed counts may differ in the last digits."""
    lines = [f"{name}: only expected" for name in expected.keys() - actual.keys()]
    lines += [f"{name}: not expected" for name in actual.keys() - expected.keys()]
    for name in sorted(expected.keys() & actual.keys()):
        if not same(expected[name], actual[name]):
            lines.append(f"{name}: expected {expected[name]}, is {actual[name]}")
    return lines


def same(expected: dict[str, Any], actual: dict[str, Any]) -> bool:
    """Whether two plain states are equal, decayed counts within rounding."""
    first, second = expected["profile"], actual["profile"]
    if first is None or second is None:
        return expected == actual
    close = all(
        math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
        for one, other in zip(first["counts"], second["counts"], strict=True)
    )
    without = [{**state, "profile": {**state["profile"], "counts": None}} for state in (expected, actual)]
    return close and without[0] == without[1]
