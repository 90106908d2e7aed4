"""Ingest as a rule: turns the raw records of one batch into one packed element per bucket.

Raw identifiers enter here and go no further: the output holds only pseudonyms and keyed hashes. Invalid records become
rejects that travel in the element, so that they leave the job exactly once.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from schemas.audit import AccessEntry
from schemas.consents import ConsentChange
from schemas.control import AccessCommand, Command, ModelCommand, ReadsCommand, UserCommand
from schemas.errors import FreshetError
from schemas.events import KIND_OF, CleanEvent, Interaction
from schemas.log_lines import HTTP_REQUEST
from schemas.marks import MARK_KEY, MOVE_ON_KEY, decode_mark
from schemas.pseudonyms import Pseudonymiser
from schemas.rejects import Origin, Reject, RejectReason
from schemas.traces import sampled_trace
from schemas.wire.codecs import BadRecord, Codec, Mapped, check_event_time
from schemas.wire.consent_records import UNREADABLE, UserDecision, consents_in
from udfs.elements import (
    AccessRequest,
    BucketMark,
    ConsentRecord,
    Element,
    EventRecord,
    ShownAt,
    halves,
    pack,
    replacement_for,
)
from udfs.fault_log import FaultLog
from udfs.personal import holds_identifier, is_own_id, mask_for_audit, mask_optional_for_audit, masked, mentions
from udfs.policy import UNRESTRICTED, Policy, decide
from udfs.popularity import user_bit_of

logger = logging.getLogger(__name__)
IDENTITIES_CACHED_MAX: Final = 100_000
"""How many raw user ids (and session ids) ingest caches in memory with their hashes."""

SEGMENT_NAMES_CACHED_MAX: Final = 10_000
"""How many surfaces and context values, as producers sent them, it caches with their masked form."""

REQUESTS_CACHED_MAX: Final = 1_000
"""How many raw request ids it caches with their hashes: the events of one request follow each other."""

ITEMS_CACHED_MAX: Final = 100_000
"""For how many items it caches whether their id could identify a person."""

_encode_clean: Final = msgspec.json.Encoder().encode
_decode_command: Final = msgspec.json.Decoder(Command | UserCommand).decode


class RawRecord(NamedTuple):
    """A Kafka record as the source emits it; `append_ts` is the broker's LogAppendTime in ms.

    `request` and `trace` are its headers `x-request-id` and `traceparent`, as whoever sent it wrote them.
    """

    topic: str
    partition: int
    offset: int
    append_ts: int
    key: bytes | None
    value: bytes | None
    request: bytes | None = None
    trace: bytes | None = None


_decode_records: Final = msgspec.msgpack.Decoder(list[RawRecord]).decode


def unpack_records(batch: bytes) -> list[RawRecord]:
    """Decode a batch packed by `jobs/java/freshet/RecordBatches.java`."""
    return _decode_records(batch)


class TopicNames(NamedTuple):
    """The full names of the topics that ingest reads."""

    interactions: str
    consents: str
    control: str


Elements = dict[int | tuple[int, int], Element]
"""The elements of a batch by bucket; commands of further moments also by append time, which says whose they are."""


class Ingest:
    """Packs batches. One object per worker; it holds secrets, so it is created in `open()` and never pickled.

    `bucket_keys[bucket]` is the stream key of a bucket; `bits_by` is the number of buckets that the deployment began
    with, by default as many as now. Without `publish_events` no event has a `clean`. With
    `numbers_are_items`, an item id of digits only is never taken for personal data.
    """

    def __init__(
        self,
        topics: TopicNames,
        codec: Codec,
        pseudonymiser: Pseudonymiser,
        bucket_keys: Sequence[int],
        segments: tuple[str, ...],
        publish_events: bool = True,
        policy: Policy = UNRESTRICTED,
        numbers_are_items: bool = False,
        bits_by: int | None = None,
    ) -> None:
        self._interactions = topics.interactions
        self._log_bad_record = FaultLog(logger, "a record cannot be processed: it becomes a dead letter")
        self._log_bad_consent = FaultLog(logger, "a consent cannot be processed: it counts as a withdrawal")
        self._codec = codec
        self._pseudonymiser = pseudonymiser
        self._bucket_keys = bucket_keys
        self._buckets = len(bucket_keys)
        self._bits_by = bits_by or len(bucket_keys)
        self._publish_events = publish_events
        self._policy = policy
        self._surface = "surface" in segments
        self._context_keys = tuple(name.removeprefix("context.") for name in segments if name.startswith("context."))
        # Shoppers come in bursts: most records of a batch belong to users and sessions seen a moment ago.
        self._identify = functools.lru_cache(IDENTITIES_CACHED_MAX)(self._compute_identity)
        self._segment_name = functools.lru_cache(SEGMENT_NAMES_CACHED_MAX)(masked)
        self._holds_identifier = functools.lru_cache(ITEMS_CACHED_MAX)(
            functools.partial(holds_identifier, numbers_are_items=numbers_are_items)
        )
        self._session_hash = functools.lru_cache(IDENTITIES_CACHED_MAX)(pseudonymiser.session)
        self._request_name = functools.lru_cache(REQUESTS_CACHED_MAX)(self._compute_request_name)
        self._take: dict[str, Callable[[RawRecord, Elements], None]] = {
            topics.interactions: self._interaction,
            topics.consents: self._consent,
            topics.control: self._command,
        }

    def pack(self, records: Iterable[RawRecord]) -> list[tuple[int, bytes]]:
        """(bucket key, packed element) for each bucket that `records` touch; a mark from `consents` touches all."""
        elements: Elements = {}
        for record in records:
            try:
                self._take[record.topic](record, elements)
            except BadRecord as bad:
                self._reject(record, bad.reason, elements, bad.request_id)
            except FreshetError:  # a schema is unavailable: the record may be valid, and is read again
                raise
            except Exception as error:  # any error would recur after each restart
                self._log_bad_record(error, {**place_of(record), HTTP_REQUEST: self._sent_by(record)})
                self._reject(record, RejectReason.NOT_CARRIED_OUT, elements)
        return [
            (self._bucket_keys[element.bucket], raw) for element in elements.values() for raw in self._packed(element)
        ]

    def _packed(self, element: Element) -> list[bytes]:
        """Encode `element`, split into as many parts as needed to drop what cannot be encoded."""
        try:
            return [pack(element)]
        except Exception as error:  # as above
            parts = halves(element)
            if not parts:
                instead = replacement_for(element, self._interactions)
                if instead is None:
                    raise
                self._log_bad_record(error)
                parts = [instead]
        return [raw for part in parts for raw in self._packed(part)]

    def _element(self, bucket: int, elements: Elements) -> Element:
        element = elements.get(bucket)
        if element is None:
            element = elements[bucket] = Element(bucket)
        return element

    def _controlled(self, bucket: int, record: RawRecord, elements: Elements) -> Element:
        """The element of `bucket` with the records of `control` that were appended with this one."""
        element = self._element(bucket, elements)
        if element.control_at not in (0, record.append_ts):
            element = elements.setdefault((bucket, record.append_ts), Element(bucket))
        element.control_at = record.append_ts
        return element

    def _reject(self, record: RawRecord, reason: RejectReason, elements: Elements, shown: str | None = None) -> None:
        """Add a reject. Rejects have no trusted user id, so they are spread over the buckets by offset."""
        element = self._element(record.offset % self._buckets, elements)
        origin = Origin(record.topic, record.partition, record.offset, record.append_ts)
        of_list = self._pseudonymiser.request(shown).hex() if shown else None
        element.rejects.append(Reject(reason, origin, 0, self._sent_by(record), of_list))

    def _sent_by(self, record: RawRecord) -> str | None:
        """The keyed hash of the id of the request that sent this record, if it has one."""
        return self._request_name(record.request) if record.request else None

    def _compute_request_name(self, request: bytes) -> str:
        return self._pseudonymiser.request(request.decode(errors="replace")).hex()

    def _interaction(self, record: RawRecord, elements: Elements) -> None:
        if self._codec.mapped is not None:
            self._mapped(record, self._codec.mapped(record.value), elements)  # type: ignore[arg-type]
            return
        event, unknown_fields = self._codec.interaction(record.value)  # type: ignore[arg-type]
        self._add_event(record, event, elements).unknown_fields += unknown_fields

    def _mapped(self, record: RawRecord, mapped: Mapped, elements: Elements) -> None:
        """Add the events of a record of others. Each is accepted or rejected for itself."""
        for event in mapped.events:
            try:
                self._add_event(record, event, elements)
            except BadRecord as bad:
                self._reject(record, bad.reason, elements, bad.request_id)
        for fault in mapped.faults:
            self._reject(record, fault.reason, elements)
        extra = len(mapped.events) + len(mapped.faults) + mapped.ignored - 1
        if mapped.ignored or extra:
            element = self._element(record.offset % self._buckets, elements)
            element.ignored += mapped.ignored
            element.extra += extra

    def _add_event(self, record: RawRecord, event: Interaction, elements: Elements) -> Element:
        """Add an event to the element of its user's bucket; raises :class:`BadRecord`."""
        try:
            check_event_time(event.ts, record.append_ts)
            self._check_item(event)
        except BadRecord as bad:
            raise BadRecord(bad.reason, event.request_id) from None
        pseudonym, route, previous = self._identify(event.user_id)
        event_record = self._event_record(record, event, pseudonym, route)
        element = self._element_of(pseudonym, route, previous, elements)
        element.events.append(event_record)
        return element

    def _check_item(self, event: Interaction) -> None:
        """Reject an item id that identifies a person, because ids reach clean events and popular lists unchanged."""
        item_id = event.item_id
        if item_id is None:
            return
        if is_own_id(item_id, event.user_id, event.session_id) or self._holds_identifier(item_id):
            raise BadRecord(RejectReason.PERSONAL_ITEM)

    def _compute_identity(self, user_id: str) -> tuple[str, int, str | None]:
        pseudonymiser = self._pseudonymiser
        return pseudonymiser.user(user_id), pseudonymiser.route(user_id), pseudonymiser.previous(user_id)

    def _element_of(self, pseudonym: str, route: int, previous: str | None, elements: Elements) -> Element:
        """The element of a user's bucket; notes the previous pseudonym, under which the user may still be stored."""
        element = self._element(route % self._buckets, elements)
        if previous is not None:
            element.links[pseudonym] = previous
        return element

    def _event_record(self, record: RawRecord, event: Interaction, pseudonym: str, route: int) -> EventRecord:
        pseudonymiser = self._pseudonymiser
        event_hash = pseudonymiser.event(event.event_id)
        session = None if event.session_id is None else self._session_hash(event.session_id)
        own_ids = _own_ids(event)
        surface = self._masked_name(event.surface, own_ids) if event.surface else event.surface
        context = self._allowed_context(event, own_ids)
        return EventRecord(
            pseudonym,
            event_hash,
            KIND_OF[event.type],
            event.ts,
            record.append_ts,
            record.partition,
            record.offset,
            user_bit_of(route, self._bits_by),
            event.item_id,
            session,
            self._segments(surface, context),
            self._clean(event, pseudonym, event_hash, session, surface, context, own_ids, record.append_ts)
            if self._publish_events
            else b"",
            event.schema_v,
            self._shown(event, pseudonym, surface),
            self._sent_by(record),
            sampled_trace(record.trace) if record.trace else None,
        )

    def _shown(self, event: Interaction, pseudonym: str, surface: str | None) -> ShownAt | None:
        """The list that the event names, if the job made it for this user or for nobody; a forged id names none."""
        if not event.request_id or event.position is None:
            return None
        pseudonymiser = self._pseudonymiser
        names = [pseudonym, previous, ""] if (previous := pseudonymiser.previous(event.user_id)) else [pseudonym, ""]
        served = pseudonymiser.recommendations.read(event.request_id, names)
        return None if served is None else (*served, event.position, surface or "")

    def _clean(
        self,
        event: Interaction,
        pseudonym: str,
        event_hash: bytes,
        session: bytes | None,
        surface: str | None,
        context: dict[str, str] | None,
        own_ids: list[str],
        appended: int,
    ) -> bytes:
        """Encode the clean event: the only output with the search text (masked).

        Lists, state and rejects never hold it.
        """
        clean = CleanEvent(
            pseudonym,
            event_hash.hex(),
            event.type,
            event.ts,
            event.item_id,
            None if session is None else session.hex(),
            event.position,
            event.value,
            event.currency,
            event.quantity,
            surface,
            None if event.request_id is None else self._pseudonymiser.request(event.request_id).hex(),
            event.scroll_pct,
            event.dwell_ms,
            context,
            event.schema_v,
            masked(event.query, own_ids) if event.query else None,
            appended,
        )
        return _encode_clean(clean)

    def _masked_name(self, name: str, own_ids: list[str]) -> str:
        """Mask a segment's name. Names repeat, so results are cached, unless the name contains an id of the event."""
        return masked(name, own_ids) if mentions(name, own_ids) else self._segment_name(name)

    def _allowed_context(self, event: Interaction, own_ids: list[str]) -> dict[str, str] | None:
        """Keep only context keys that define segments, and mask their values, which become Redis keys."""
        context = event.context
        if not context:
            return None
        return {key: self._masked_name(context[key], own_ids) for key in self._context_keys if key in context} or None

    def _segments(self, surface: str | None, context: dict[str, str] | None) -> tuple[str, ...]:
        segments = [f"surface:{surface}"] if self._surface and surface else []
        if context:
            segments += [f"{key}:{value}" for key, value in context.items() if value]
        return tuple(segments)

    def _consent(self, record: RawRecord, elements: Elements) -> None:
        """Decode by :mod:`schemas.wire.consent_records`; a record with no user, or too many, becomes a dead letter."""
        if record.key == MARK_KEY:
            self._mark(record, elements)
            return
        if record.key == MOVE_ON_KEY:
            return
        consents = consents_in(self._codec, record.key, record.value, record.append_ts)
        for said in consents:
            self._add_consent(said, (record.append_ts, record.partition, record.offset), elements)
        if consents[0].more:
            self._reject(record, RejectReason.TOO_MANY_USERS, elements)

    def _add_consent(self, said: UserDecision, place: tuple[int, int, int], elements: Elements) -> None:
        if said.error is not None:
            self._log_bad_consent(said.error)
        change = said.change
        pseudonym, route, previous = self._identify(change.user_id)
        try:
            consent = consent_record(change, pseudonym, place, self._policy, said.absent)
        except Exception as error:  # a change that cannot be evaluated must not leave an older consent active
            self._log_bad_consent(error)
            withdrawal = ConsentChange(change.user_id, "none", place[0], method=UNREADABLE, erase=change.erase)
            consent = consent_record(withdrawal, pseudonym, place)
        element = self._element_of(pseudonym, route, previous, elements)
        element.consents.append(consent)
        element.unknown_fields += said.unknown_fields

    def _mark(self, record: RawRecord, elements: Elements) -> None:
        """Pass a mark to every bucket: everything before it in its partition is in this batch or an earlier one."""
        mark = decode_mark(record.value)
        if mark is None:
            raise BadRecord(RejectReason.MALFORMED)
        for bucket in range(self._buckets):
            told = BucketMark(mark.token, record.partition, mark.partitions)
            self._element(bucket, elements).marks.append(told)

    def _command(self, record: RawRecord, elements: Elements) -> None:
        try:
            command = _decode_command(record.value or b"")
        except (ValueError, RecursionError):
            raise BadRecord(RejectReason.MALFORMED) from None
        if isinstance(command, UserCommand):
            self._user_command(record, command, elements)
            return
        if command.bucket >= self._buckets:
            raise BadRecord(RejectReason.OUT_OF_RANGE)
        if isinstance(command, ModelCommand):
            command = msgspec.structs.replace(command, offset=record.offset)
        self._controlled(command.bucket, record, elements).commands.append(command)

    def _user_command(self, record: RawRecord, command: UserCommand, elements: Elements) -> None:
        if command.user_id is None:
            element, pseudonym = self._controlled(record.offset % self._buckets, record, elements), None
        else:
            pseudonym, route, previous = self._identify(command.user_id)
            element = self._controlled(route % self._buckets, record, elements)
            if previous is not None:
                element.links[pseudonym] = previous
        own_ids = [] if command.user_id is None else [command.user_id]
        if isinstance(command, ReadsCommand):
            role, purpose, what = (
                mask_for_audit(text, own_ids) for text in (command.role, command.purpose, command.what)
            )
            element.accesses.append(AccessEntry(role, purpose, what, command.reads, pseudonym))
        elif isinstance(command, AccessCommand) and pseudonym is not None:
            role, purpose = mask_for_audit(command.role, own_ids), mask_for_audit(command.purpose, own_ids)
            element.access_requests.append(AccessRequest(pseudonym, command.request, role, purpose))


def place_of(record: RawRecord) -> dict[str, str | int]:
    """The coordinates of a record, as fields of a log line."""
    return {"kafka.topic": record.topic, "kafka.partition": record.partition, "kafka.offset": record.offset}


def _own_ids(event: Interaction) -> list[str]:
    """The producer's ids of the user, event, session and request of an event."""
    own_ids = (event.user_id, event.event_id, event.session_id, event.request_id)
    return [own_id for own_id in own_ids if own_id]


def consent_record(
    change: ConsentChange,
    pseudonym: str,
    place: tuple[int, int, int],
    policy: Policy = UNRESTRICTED,
    absent: bool = False,
) -> ConsentRecord:
    """`change` for the next operator; `place` is its append time in ms, partition and offset.

    A clock ahead of the broker's neither prolongs a consent nor blocks later grants. Free text of the record goes into
    the audit trail, so it is masked after the decision.
    """
    change.ts = min(change.ts, place[0])
    if change.erase:
        change.level = "none"
    level, purposes, expires_at, narrowed_by = decide(change, policy)
    own_ids = [change.user_id]
    return ConsentRecord(
        pseudonym,
        level,
        purposes,
        *place,
        expires_at,
        change.ts,
        change.erase,
        absent,
        mask_optional_for_audit(change.method, own_ids),
        mask_optional_for_audit(change.notice_version, own_ids),
        mask_optional_for_audit(change.jurisdiction, own_ids),
        narrowed_by,
    )
