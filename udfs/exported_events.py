"""An event of an export, as the rules of the job take it."""

from schemas.events import KIND_OF
from schemas.exports import ExportedEvent
from schemas.pseudonyms import EVENT_HASH_BYTES
from udfs.elements import EventRecord


def record_of(event: ExportedEvent, number: int) -> EventRecord:
    """The record of `event`, the one with this `number` of its export: exports have no hashes, and no event twice."""
    name, session = number.to_bytes(EVENT_HASH_BYTES, "big"), bytes.fromhex(event.session or "")
    kind, place = KIND_OF[event.type], (event.appended, 0, number, 0)
    return EventRecord(
        event.pseudonym, name, kind, event.ts, *place, event.item_id, session or None, (), b"", event.schema_v
    )
