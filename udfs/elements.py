"""Elements, which cross from the JVM to Python: one packed element per bucket and batch, several of them gathered.

An element holds all records of one batch for one bucket, already decoded, checked and pseudonymised. It exists only
between two operators of one job and is never stored, so its format may change with any release (a savepoint holds no
elements, because checkpoints are aligned).
"""

from typing import Final

import msgspec

from schemas.audit import AccessEntry
from schemas.control import Command
from schemas.rejects import Origin, Reject, RejectReason

NOT_CARRIED_OUT: Final = RejectReason.NOT_CARRIED_OUT.value


ShownAt = tuple[str, str, bytes, int, str]
"""Where an event happened in a list: what its recommendation id says (model, arm, list), position and surface."""


class _CleanRequest(msgspec.Struct, gc=False):
    """The one field of a clean event that a log line has."""

    request: str | None = None


_decode_request: Final = msgspec.json.Decoder(_CleanRequest).decode


class EventRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An interaction after ingest. `kind` is its position in :data:`schemas.events.EVENT_TYPES`.

    `clean` is its JSON for the `events` topic, without the purposes. `user_bit` is one of 64, chosen by a keyed hash of
    the user: popular lists count distinct users with it. `shown` is where in a list it happened, if it names one.
    `sent_by` is the keyed hash of the id of the request that sent it, `trace` its context if its trace is sampled.
    """

    pseudonym: str
    event: bytes
    kind: int
    ts: int
    append_ts: int
    partition: int
    offset: int
    user_bit: int
    item: str | None
    session: bytes | None
    segments: tuple[str, ...]
    clean: bytes
    schema_v: int
    shown: ShownAt | None = None
    sent_by: str | None = None
    trace: str | None = None

    def list_request(self) -> str | None:
        """The keyed hash of the `request_id` in the event; None if events are not published, too."""
        return _decode_request(self.clean).request if self.clean else None


class ConsentRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A consent change after ingest; :func:`udfs.consent.is_newer` compares two.

    `said_at` is when the user gave or withdrew it, by the collector's clock but never later than `append_ts`. `erase`
    requests the erasure of the user. `absent` marks a record without a value: no consent is on record any more.
    `narrowed_by` says why less applies than was granted.
    """

    pseudonym: str
    level: int
    purposes: int
    append_ts: int
    partition: int
    offset: int
    expires_at: int
    said_at: int
    erase: bool = False
    absent: bool = False
    method: str | None = None
    notice_version: str | None = None
    jurisdiction: str | None = None
    narrowed_by: tuple[str, ...] = ()


class AccessRequest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request for all data kept about a user: :class:`schemas.control.AccessCommand` after ingest."""

    pseudonym: str
    request: str
    role: str
    purpose: str


class BucketMark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A mark as it reaches each bucket: read from `partition`; `partitions` partitions have one for `token`."""

    token: str
    partition: int
    partitions: int


class Element(msgspec.Struct, array_like=True, gc=False):
    """All records of one batch for `bucket`, in the order in which they were read.

    During a key rotation, `links` maps each current pseudonym in the element to its previous one. `access_requests` are
    requests for users' data, `accesses` are reads that others report. `marks` are the batch's marks from `consents`,
    which go to every bucket. `control_at` is when the record of its commands, accesses and requests was appended, in
    ms: an element has those of one moment. Of interactions that are read by a map, `ignored` were none, and `extra` is
    how many more there are than records.
    """

    bucket: int
    events: list[EventRecord] = []
    consents: list[ConsentRecord] = []
    rejects: list[Reject] = []
    commands: list[Command] = []
    unknown_fields: int = 0
    links: dict[str, str] = {}
    access_requests: list[AccessRequest] = []
    accesses: list[AccessEntry] = []
    marks: list[BucketMark] = []
    control_at: int = 0
    ignored: int = 0
    extra: int = 0

    def counted_like(self, other: "Element") -> "Element":
        """This element, with what `other` counts beside its records."""
        self.unknown_fields, self.ignored, self.extra = other.unknown_fields, other.ignored, other.extra
        return self


_RECORDS: Final = ("consents", "events", "rejects", "commands", "access_requests", "accesses", "marks")
"""The lists of an element, in the order in which they apply: a mark comes after everything that it vouches for."""


def record_count(element: Element) -> int:
    """How many records `element` has."""
    return sum([len(getattr(element, name)) for name in _RECORDS])


def halves(element: Element) -> list[Element]:
    """Split `element` in two, to be applied one after the other; empty if it has at most one record."""
    records = [(name, record) for name in _RECORDS for record in getattr(element, name)]
    if len(records) < 2:
        return []
    middle = len(records) // 2
    at = element.control_at
    first = Element(element.bucket, links=element.links, control_at=at).counted_like(element)
    second = Element(element.bucket, links=element.links, control_at=at)
    for half, part in ((first, records[:middle]), (second, records[middle:])):
        for name, record in part:
            getattr(half, name).append(record)
    return [first, second]


def replacement_for(element: Element, interactions: str) -> Element | None:
    """The replacement for a single-record element that cannot be applied; None if there is nothing left to try.

    An interaction, read from the topic `interactions`, becomes a dead letter; a consent change becomes a withdrawal.
    """
    instead = Element(element.bucket, links=element.links).counted_like(element)
    for event in element.events:
        origin = Origin(interactions, event.partition, event.offset, event.append_ts)
        instead.rejects.append(Reject(RejectReason.NOT_CARRIED_OUT, origin, 0, event.sent_by, event.list_request()))
    for change in element.consents:
        if change.narrowed_by != (NOT_CARRIED_OUT,):
            instead.consents.append(withdrawal_for(change))
    return instead if instead.rejects or instead.consents else None


def fields_of_record(element: Element, interactions: str) -> dict[str, str | int | None]:
    """The bucket, and the coordinates of the only record of `element`, as fields of a log line."""
    fields: dict[str, str | int | None] = {"freshet.bucket": element.bucket}
    for event in element.events:
        origin = Origin(interactions, event.partition, event.offset, event.append_ts)
        reject = Reject(RejectReason.NOT_CARRIED_OUT, origin, 0, event.sent_by, event.list_request())
        fields |= reject.log_fields()
    for change in element.consents:
        fields |= {"kafka.partition": change.partition, "kafka.offset": change.offset}
    return fields


def withdrawal_for(change: ConsentRecord) -> ConsentRecord:
    """The withdrawal that replaces a `change` that cannot be applied; an erasure stays an erasure."""
    place = change.append_ts, change.partition, change.offset
    narrowed_by = (NOT_CARRIED_OUT,)
    return ConsentRecord(
        change.pseudonym, 0, 0, *place, 0, change.append_ts, change.erase, change.absent, narrowed_by=narrowed_by
    )


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Element)
_gathered_decoder: Final = msgspec.msgpack.Decoder(list[tuple[int, Element]])


def pack(element: Element) -> bytes:
    """Encode `element`."""
    return _encoder.encode(element)


def unpack(raw: bytes) -> Element:
    """Decode an element."""
    return _decoder.decode(raw)


def unpack_gathered(raw: bytes) -> dict[int, Element]:
    """Decode what `jobs/java/freshet/GatheredElements.java` packs: one element for each key, in the order of the keys.

    Elements of the same key become one, as if their batches had been one.
    """
    found: dict[int, Element] = {}
    for key, element in _gathered_decoder.decode(raw):
        if (before := found.setdefault(key, element)) is not element:
            for name in _RECORDS:
                getattr(before, name).extend(getattr(element, name))
            before.unknown_fields += element.unknown_fields
            before.ignored += element.ignored
            before.extra += element.extra
            before.links |= element.links
    return found
