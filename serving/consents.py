"""Records what users decide about their data, from a frontend or a gateway.

Every change that narrows consent is in effect before the call returns.

    tenant = load_tenant("tenant.toml")
    ring, life_ms = load_key_ring(tenant.key_ring), tenant.tombstone_life_ms()
    consents = Consents("redis://…", {"bootstrap_servers": "…"}, ring, tombstone_ms=life_ms)
    consents.record(ConsentChange("ada", "full", ts, method="banner", notice_version="7"))
    consents.withdraw("ada")
    consents.erase("ada")

A withdrawal is written to Redis first (the fence), then to the topic, and then its offset to Redis. Once the call has
returned, the withdrawal is acknowledged: no later answer is personalised, whatever the job has yet to read.

Any other change is written to the topic, and then a hold to Redis: after the call has returned, no answer is
personalised until the job has applied the change. It may narrow the consent (a lower level, a denied purpose, an
expiry, a signal that the job's policy evaluates), and only the job knows.

An invalid change that names its user counts as a withdrawal, as it does for the job
(:func:`read_consent_or_withdrawal`).

Needs `freshet-client[kafka]`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

import msgspec
from kafka.errors import KafkaError

from adapters.kafka.sender import LazyProducer
from adapters.redis.address import RedisAddress
from adapters.redis.client import Keyed, RedisClient, always
from adapters.redis.greeting import Standing
from adapters.redis.scripts import WITHDRAW, WRITE_CONSENT, Script
from adapters.schema_sources import writer_of
from schemas import topics
from schemas.consents import ConsentChange, LenientConsentChange, Level
from schemas.errors import ConsentRefused, InvalidConsent, NotAcknowledged, StoreMisconfigured, StoreUnavailable
from schemas.events import FUTURE_SKEW_MAX_MS
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.rejects import RejectReason
from schemas.store import (
    ConsentOutcome,
    ConsentWrite,
    TenantMark,
    all_user_keys,
    hold_arguments,
    mark_of,
    withdrawn_at,
)
from schemas.wire.codecs import json_codec
from schemas.wire.consent_records import NAMED_MAX, UNREADABLE, is_user_id, unreadable_consent
from schemas.wire.naming import is_ambiguous
from schemas.wire.writers import AS_JSON, WriteSettings
from serving.forms import UNKNOWN_FIELD, Form

Keys = tuple[str, str, str, str]
KAFKA_TIMEOUT_S: Final = 10.0
STORE_ERRORS: Final = (StoreUnavailable, StoreMisconfigured)
_FORM: Final = Form(
    "consents",
    json_codec().consent,
    LenientConsentChange,
    InvalidConsent,
    {
        RejectReason.CONTROL_CHARACTER: "`user_id` has no control characters",
        RejectReason.REPEATED_FIELD: "a field is repeated, or its name differs from a known one only in case, "
        "spaces or signs: it is ambiguous which one counts",
    },
)


class RecordedConsent(NamedTuple):
    """The position of a change in `consents`; `append_ts` in ms since the epoch."""

    append_ts: int
    partition: int
    offset: int


class Consents:
    """Writes consent changes. Thread-safe.

    `kafka`: options of kafka-python's producer. `tombstone_ms`: the job's value (:func:`load_tenant`).
    `store`: the address of Redis, or a client whose prefix takes precedence over `prefix`. With `replicas` in the
    address, an acknowledged withdrawal has also reached that many replicas. `input`: the job's input settings, which
    set the format of records. Raises :class:`SettingsError` if the job could not read them.
    """

    def __init__(
        self,
        store: RedisAddress | RedisClient | str,
        kafka: Mapping[str, Any],
        key_ring: KeyRing,
        *,
        tombstone_ms: int,
        topic_prefix: str = "freshet.",
        prefix: str = "",
        password: str | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        input: WriteSettings = AS_JSON,
    ) -> None:
        self._write = writer_of(input).consent
        self._topic = topics.prefixed(topic_prefix, topics.CONSENTS)
        self._client = (
            store
            if isinstance(store, RedisClient)
            else _client(store, password, prefix, mark_of(key_ring, topic_prefix))
        )
        self._producer = LazyProducer({"acks": "all", "enable_idempotence": True, "linger_ms": 0, **kafka})
        self._pseudonyms = Pseudonymiser(key_ring).all
        self._prefix = self._client.prefix
        self._tombstone_ms = tombstone_ms
        self._clock_ms = clock_ms

    def record(self, change: ConsentChange) -> RecordedConsent:
        """Write `change`, and return when it is acknowledged.

        Raises :class:`InvalidConsent` (see :func:`read_consent_or_withdrawal`), :class:`ConsentRefused` for a grant no
        later than the user's last withdrawal, and :class:`NotAcknowledged` if Redis or Kafka did not answer. Its text
        says what was recorded, and calling again is safe.
        """
        try:
            raw = _FORM.encoded(change)
        except InvalidConsent as invalid:
            return self.record_parsed(
                _as_withdrawal(_Intent(change.user_id, change.level, change.erase), invalid, self._clock_ms())
            )
        return self.record_parsed(read_consent_or_withdrawal(raw, self._clock_ms()))

    def record_parsed(self, parsed: "ParsedConsent", headers: Sequence[tuple[str, bytes]] = ()) -> RecordedConsent:
        """As :meth:`record`, for the result of :func:`read_consent_or_withdrawal`.

        The job reads the header `x-request-id` of records, and logs its hash with what it says of them.
        Raises :class:`InvalidConsent` if the record did not ask for a withdrawal.
        """
        change = parsed.change
        for other in parsed.others:
            self._withdraw(other, headers)
        if change.erase or change.level == "none":
            at = self._withdraw(change, headers)
            if parsed.invalid is not None and not parsed.meant:
                raise InvalidConsent(
                    parsed.invalid.reason, f"{parsed.invalid}; it counts as a withdrawal, which is in force"
                )
            return at
        if change.ts > self._clock_ms() + FUTURE_SKEW_MAX_MS:  # no withdrawal in the coming years would be later
            raise InvalidConsent("time_in_future", "`ts` of a grant is in the future: use the current time in ms")
        self._refuse_older(change)
        return self._change(change, headers)

    def withdraw(self, user_id: str, **more: Any) -> RecordedConsent:
        """End all personalisation of `user_id`. `more` are fields of :class:`ConsentChange`, such as `method`."""
        return self.record(ConsentChange(user_id, "none", self._clock_ms(), **more))

    def erase(self, user_id: str, **more: Any) -> RecordedConsent:
        """Erase `user_id` (GDPR, article 17)."""
        return self.withdraw(user_id, erase=True, **more)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._producer.close()
        self._client.close()

    def _withdraw(self, change: ConsentChange, headers: Sequence[tuple[str, bytes]]) -> RecordedConsent:
        """Write to both, even if one is down: the topic makes the withdrawal permanent, the fence immediate."""
        users = self._keys(change.user_id)
        wants = "erase" if change.erase else "none"
        fence = self._try_fence(WITHDRAW, [(keys, (change.ts, wants, self._tombstone_ms)) for keys in users])
        at = self._append(change, headers)
        # Redis caps the time of the withdrawal at its own clock. The record must use the capped time, or it would look
        # older than its own fence.
        times = (
            [int(answer) for answer in fence]
            if isinstance(fence, list)
            else [min(change.ts, at.append_ts)] * len(users)
        )
        decisions = [
            ConsentWrite(Level.NONE, 0, *at, said_at, change.erase).arguments(self._tombstone_ms) for said_at in times
        ]
        placed = self._try_fence(WRITE_CONSENT, list(zip(users, decisions, strict=True)))
        if error := next((answer for answer in (placed, fence) if isinstance(answer, str)), None):
            raise NotAcknowledged(
                f"the {_kind(change)} is recorded in the topic, but Redis did not accept it ({error}): "
                "it takes effect when the job has read it; call again to confirm"
            )
        return at

    def _change(self, change: ConsentChange, headers: Sequence[tuple[str, bytes]]) -> RecordedConsent:
        """Write to the topic first: a change that it does not accept must not block anything."""
        users, at = self._keys(change.user_id), self._append(change, headers)
        hold = hold_arguments(*at, min(change.ts, at.append_ts), self._tombstone_ms)
        held = self._try_fence(WRITE_CONSENT, [(keys, hold) for keys in users])
        if isinstance(held, str):
            raise NotAcknowledged(
                f"the change is recorded in the topic, but Redis did not accept it ({held}): until the job has read "
                "it, the previous consent may still be served; call again to confirm"
            )
        if ConsentOutcome.REFUSED in held:
            raise ConsentRefused("the user has withdrawn since giving this consent")
        return at

    def _try_fence(self, script: Script, calls: list[tuple[Keys, tuple[Any, ...]]]) -> list[Any] | str:
        """Run a script for each pseudonym of a user and wait for the replicas; returns replies or an error text."""
        commands: list[Keyed] = [(keys[0], script(keys, *arguments)) for keys, arguments in calls]
        foreign: set[str] = set()

        def check_tenant(standing: Standing) -> list[Keyed]:
            foreign.add(standing.foreign)
            return commands  # harmless even in another tenant's Redis

        try:
            answers = self._client.run(check_tenant, durable=True)
        except STORE_ERRORS as error:
            return str(error)
        return max(foreign, default="") or answers

    def _append(self, change: ConsentChange, headers: Sequence[tuple[str, bytes]]) -> RecordedConsent:
        try:
            producer = self._producer.get()
            raw, added = self._write(change), list(headers)
            sent = producer.send(self._topic, key=change.user_id.encode(), value=raw, headers=added)
            at = sent.get(KAFKA_TIMEOUT_S)
        except KafkaError as error:
            fenced = "is in force where Redis answers, but " if change.level == "none" else ""
            raise NotAcknowledged(
                f"the topic {self._topic} did not acknowledge the {_kind(change)} ({type(error).__name__}): it "
                f"{fenced}may not be recorded: call again"
            ) from None
        return RecordedConsent(at.timestamp, at.partition, at.offset)

    def _refuse_older(self, grant: ConsentChange) -> None:
        decided = [key for _, consent, gone, _ in self._keys(grant.user_id) for key in (consent, gone)]
        try:
            known = self._client.run(always([(key, ("GET", key)) for key in decided]))
        except STORE_ERRORS as error:
            raise NotAcknowledged(f"{error}: nothing was written") from None
        if grant.ts <= max(withdrawn_at(value or b"") for value in known):
            raise ConsentRefused("the user has withdrawn since giving this consent")

    def _keys(self, user_id: str) -> list[Keys]:
        """The keys of each pseudonym of the user: two during a key rotation."""
        prefix = self._prefix
        return [all_user_keys(prefix, name) for name in self._pseudonyms(user_id)]


def read_consent(raw: bytes) -> ConsentChange:
    """Decode the JSON of a consent change; raises :class:`InvalidConsent`. An unknown field is an error."""
    return _FORM.read(raw)


class ParsedConsent(NamedTuple):
    """A consent change as it counts. `invalid` is the error of an invalid record, which counts as a withdrawal.

    `meant` is false if the record did not ask for a withdrawal: the sender is told so after the withdrawal. `others`
    are withdrawals of further users whom a damaged record names.
    """

    change: ConsentChange
    invalid: InvalidConsent | None = None
    meant: bool = True
    others: tuple[ConsentChange, ...] = ()


class _Intent(msgspec.Struct):
    """The part of a change that names its user, and says whether they withdraw."""

    user_id: str
    level: Any = None
    erase: Any = False


_decode_intent: Final = msgspec.json.Decoder(_Intent).decode


def read_consent_or_withdrawal(raw: bytes, now_ms: int) -> ParsedConsent:
    """The change in the JSON `raw`.

    An invalid record still means that its user decided something. If it names a user, it counts as a withdrawal as of
    `now_ms`, as it does for the job, even if it is not JSON any more (:mod:`schemas.wire.consent_records`). A grant
    whose only error is an unknown field is refused, and nothing is recorded. Raises :class:`InvalidConsent` in that
    case, and if no user is named.
    """
    try:
        return ParsedConsent(read_consent(raw))
    except InvalidConsent as invalid:
        try:
            parsed = None if is_ambiguous(raw) else _decode_intent(raw)
        except (ValueError, RecursionError):
            parsed = None
        return _from_damaged(raw, invalid, now_ms) if parsed is None else _as_withdrawal(parsed, invalid, now_ms)


def _as_withdrawal(parsed: _Intent, invalid: InvalidConsent, now_ms: int) -> ParsedConsent:
    meant = parsed.erase is True or parsed.level == "none"
    if not is_user_id(parsed.user_id) or (invalid.reason == UNKNOWN_FIELD and not meant):
        raise invalid
    change = ConsentChange(parsed.user_id, "none", now_ms, method=UNREADABLE, erase=parsed.erase is True)
    return ParsedConsent(change, invalid, meant)


def _from_damaged(raw: bytes, invalid: InvalidConsent, now_ms: int) -> ParsedConsent:
    """Damaged JSON (cut off, framed, a repeated field, …) names the users that it names for the job.

    If these are more than the job takes from one record, nothing is recorded, and the sender is told so.
    """
    withdrawals = unreadable_consent(json_codec(), None, raw, now_ms)
    if len(withdrawals) > NAMED_MAX:
        raise InvalidConsent(
            RejectReason.TOO_MANY_USERS.value,
            f"this names too many users: nothing is recorded of any of them; send one record for each user "
            f"(a broken record withdraws {NAMED_MAX} users at most)",
        )
    if withdrawals:
        return ParsedConsent(withdrawals[0], invalid, meant=False, others=tuple(withdrawals[1:]))
    raise invalid


def _kind(change: ConsentChange) -> str:
    if change.erase:
        return "erasure"
    return "withdrawal" if change.level == "none" else "consent change"


def _client(store: RedisAddress | str, password: str | None, prefix: str, tenant: TenantMark) -> RedisClient:
    address = RedisAddress((store,)) if isinstance(store, str) else store
    return RedisClient(address, password, prefix=prefix, tenant=tenant)
