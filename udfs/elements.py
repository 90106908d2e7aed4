"""Elements, which cross from the JVM to Python: one packed element per bucket and batch.

An element holds everything that one batch of records had for one bucket, already decoded, checked and pseudonymised.
It lives between two operators of one job only and is never kept, so its form may change with any release
(a savepoint holds no elements: channels are aligned).
"""

from typing import Final

import msgspec

from schemas.audit import AccessEntry
from schemas.control import Command
from schemas.rejects import Origin, Reject, RejectReason

NOT_CARRIED_OUT: Final = RejectReason.NOT_CARRIED_OUT.value


class EventRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An interaction behind the ingest operator: `kind` is its place in :data:`schemas.events.EVENT_TYPES`.

    `clean` is its JSON for the `events` topic but for the purposes; `user_bit` is one of 64, drawn by a keyed hash of
    the user: popular lists count distinct users with it.
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


class ConsentRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A consent change behind the ingest operator; :func:`udfs.consent.is_newer` orders two.

    `said_at` is when the user said so, by the clock of the collector but never later than `append_ts`. `erase` asks for
    the erasure of the user. `absent` marks a record without a value: there is no consent on record any more.
    `narrowed_by` says why less is in force than was granted.
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


class AskedFor(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All that is kept of a user is asked for: :class:`schemas.control.AccessCommand` behind the ingest operator."""

    pseudonym: str
    request: str
    role: str
    purpose: str


class BucketMark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A mark as it reaches each bucket: it stood in `partition`, and `partitions` have one for `token`."""

    token: str
    partition: int
    partitions: int


class Element(msgspec.Struct, array_like=True, gc=False):
    """All that one batch had for `bucket`, in the order in which it was read.

    While a rotation is under way, `links` has the previous pseudonym of each current one that the element names.
    `asked_for` are the users whose data somebody asks for, `accesses` what others say that they have read. `marks` are
    those of `consents` that the batch had, for every bucket.
    """

    bucket: int
    events: list[EventRecord] = []
    consents: list[ConsentRecord] = []
    rejects: list[Reject] = []
    commands: list[Command] = []
    unknown_fields: int = 0
    links: dict[str, str] = {}
    asked_for: list[AskedFor] = []
    accesses: list[AccessEntry] = []
    marks: list[BucketMark] = []


_RECORDS: Final = ("consents", "events", "rejects", "commands", "asked_for", "accesses", "marks")
"""The lists of an element, in the order in which they count: a mark follows all that it vouches for."""


def halves(element: Element) -> list[Element]:
    """`element` cut in two, to be carried out one after the other; none where it has one record or less."""
    records = [(name, record) for name in _RECORDS for record in getattr(element, name)]
    if len(records) < 2:
        return []
    middle = len(records) // 2
    first = Element(element.bucket, unknown_fields=element.unknown_fields, links=element.links)
    second = Element(element.bucket, links=element.links)
    for half, part in ((first, records[:middle]), (second, records[middle:])):
        for name, record in part:
            getattr(half, name).append(record)
    return [first, second]


def given_up(element: Element, interactions: str) -> Element | None:
    """What is carried out in the place of an element of one record that cannot be; None where nothing is left to try.

    An interaction, read from the topic `interactions`, becomes a dead letter; a consent change counts as a withdrawal.
    """
    instead = Element(element.bucket, unknown_fields=element.unknown_fields, links=element.links)
    for event in element.events:
        origin = Origin(interactions, event.partition, event.offset, event.append_ts)
        instead.rejects.append(Reject(RejectReason.NOT_CARRIED_OUT, origin))
    for change in element.consents:
        if change.narrowed_by != (NOT_CARRIED_OUT,):
            instead.consents.append(withdrawal_instead_of(change))
    return instead if instead.rejects or instead.consents else None


def withdrawal_instead_of(change: ConsentRecord) -> ConsentRecord:
    """The withdrawal that stands where `change` cannot be carried out; an erasure stays one."""
    place = change.append_ts, change.partition, change.offset
    narrowed_by = (NOT_CARRIED_OUT,)
    return ConsentRecord(
        change.pseudonym, 0, 0, *place, 0, change.append_ts, change.erase, change.absent, narrowed_by=narrowed_by
    )


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Element)


def pack(element: Element) -> bytes:
    """The bytes of `element`."""
    return _encoder.encode(element)


def unpack(raw: bytes) -> Element:
    """The element behind `raw`."""
    return _decoder.decode(raw)
