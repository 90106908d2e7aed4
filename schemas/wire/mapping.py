"""Reads records of others as interactions, by a map (:mod:`schemas.wire.map_settings`).

A record is read quickly if it can be (:mod:`schemas.wire.named_members`). What cannot, because a number is written as
text or an array stands where the map has an object, is decoded whole and walked. For records that both ways read, their
results are the same: a property test compares them.
"""

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from schemas.decoding import CURRENCY_PATTERN
from schemas.errors import SettingsError
from schemas.events import EVENT_TYPES, Interaction
from schemas.rejects import RejectReason
from schemas.wire.codecs import PAYLOAD_BYTES_MAX, BadRecord, Mapped, check_interaction, check_size, reason_of
from schemas.wire.map_settings import MAPPED, FieldMap, InputMap, check_map, texts
from schemas.wire.named_members import ABSENT, Converters, NotQuick, Place, QuickReader, quick_reader
from schemas.wire.presets import PRESET_MAPS
from schemas.wire.record_paths import Path, parse_path, walk
from schemas.wire.record_values import (
    as_currency,
    as_event_id,
    as_id,
    as_number,
    as_text,
    as_whole_number,
    digest,
    reader_of_times,
)
from schemas.wire.snowplow import is_tsv, record_of_tsv

EVENTS_MAX: Final = 1_000
"""How many events one record may hold; a record with more is rejected."""
OF_PRODUCTS: Final = ("item_id", "value", "quantity", "position")
"""Fields that belong to the entry of an array beside which their path lies."""
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "event_id": as_event_id,
    "user_id": as_id,
    "session_id": as_id,
    "item_id": as_id,
    "request_id": as_id,
    "position": as_whole_number,
    "quantity": as_whole_number,
    "dwell_ms": as_whole_number,
    "value": as_number,
    "scroll_pct": as_number,
    "currency": as_currency,
    "surface": as_text,
    "query": as_text,
}
_MISSING: Final = {"user_id": RejectReason.MISSING_USER, "item_id": RejectReason.MISSING_ITEM}
IGNORE: Final = "ignore"
_CURRENCY: Final = re.compile(CURRENCY_PATTERN)
_to_interaction: Final = functools.partial(msgspec.convert, type=Interaction)


class _Field(NamedTuple):
    """A field, how to read it, and where: the first place that holds something counts."""

    name: str
    read: Callable[[Any], Any]
    places: tuple[Place, ...]


class Mapper:
    """Reads records by a map. Raises :class:`SettingsError` for a map by which none can be read."""

    def __init__(self, whole: InputMap) -> None:
        check_map(whole)
        kind = whole.field("type")
        assert kind is not None
        self._types = {name: name for name in EVENT_TYPES} if kind.values is None else dict(kind.values)
        self._other = kind.other
        each = _arrays(whole)
        self._arrays = _steps(each)
        self._kind = _field("type", kind, each)
        self._fields = [
            _field(name, entry, each) for name in MAPPED if name != "type" and (entry := whole.field(name)) is not None
        ]
        self._context = [_field(name, FieldMap(paths), each) for name, paths in (whole.context or {}).items()]
        self._kind_is_of_record = all(place.level == 0 for place in self._kind.places)
        self._decode_whole = msgspec.json.Decoder().decode
        self._quick = self._quick_reader()

    def __call__(self, raw: bytes | None) -> Mapped:
        """The events of a record. Raises :class:`BadRecord` for bytes that are no record."""
        check_size(raw, PAYLOAD_BYTES_MAX)
        assert raw is not None
        try:
            if self._quick is not None:
                try:
                    return self._read_quickly(raw, self._quick)
                except (msgspec.ValidationError, NotQuick, BadRecord):
                    pass
            return self.of_decoded(raw, self._decode_whole(raw))
        except (ValueError, RecursionError) as error:
            raise BadRecord(reason_of(error)) from None

    def of_decoded(self, raw: bytes, record: Any) -> Mapped:
        """The events of a record that was decoded from `raw`."""
        if not isinstance(record, dict):
            raise BadRecord(RejectReason.WRONG_TYPE)
        if self._kind_is_of_record and self._type(_first(self._kind.places, (record,)), False) == IGNORE:
            return Mapped([], 1, [])
        entries = self._entries((record,))
        mapped, ignored = Mapped([], 0, []), 0
        for number, levels in enumerate(entries):
            try:
                event = self._event(raw, levels, number if len(entries) > 1 else None)
            except BadRecord as bad:
                mapped.faults.append(bad)
            else:
                if event is None:
                    ignored += 1
                else:
                    mapped.events.append(event)
        return mapped._replace(ignored=ignored)

    def _quick_reader(self) -> QuickReader | None:
        if self._context or not self._kind_is_of_record or len(self._kind.places) != 1:
            return None
        fields = {field.name: field.places for field in (self._kind, *self._fields)}
        ts = next(field for field in self._fields if field.name == "ts")
        converters = Converters(self._types.__getitem__, ts.read, _currency_of, as_event_id, digest)
        return quick_reader(fields, self._arrays, converters)

    def _read_quickly(self, raw: bytes, quick: QuickReader) -> Mapped:
        node = quick.decode(raw)
        kind = self._types.get(quick.kind(node))
        if kind is None or kind == IGNORE:
            if kind == IGNORE or self._other == IGNORE:
                return Mapped([], 1, [])
            raise NotQuick
        if not quick.arrays[0](node):
            event = quick.event((node,), raw, "")
            check_interaction(event)
            return Mapped([event], 0, [])
        entries = _quick_entries(quick, (node,))
        numbered = len(entries) > 1
        events = [quick.event(nodes, raw, f"#{at}" if numbered else "") for at, nodes in enumerate(entries)]
        for event in events:
            check_interaction(event)
        return Mapped(events, 0, [])

    def _entries(self, levels: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """For each event, the record and the entries that it is in; one event if an array is empty."""
        array = walk(levels[-1], self._arrays[len(levels) - 1]) if len(levels) <= len(self._arrays) else None
        if not isinstance(array, list) or not array:
            return [levels]
        return _expanded(array, lambda entry: self._entries((*levels, entry)))

    def _event(self, raw: bytes, levels: tuple[Any, ...], number: int | None) -> Interaction | None:
        """The event of one entry; None if it is to be ignored."""
        kind = self._type(_first(self._kind.places, levels))
        if kind == IGNORE:
            return None
        found: dict[str, Any] = {"type": kind}
        for name, read, places in self._fields:
            if (value := _first(places, levels)) is not None:
                found[name] = read(value)
        if "event_id" not in found:
            found["event_id"] = digest(raw)
        if number is not None:
            found["event_id"] = as_event_id(f"{found['event_id']}#{number}")
        if self._context:
            found["context"] = {
                name: as_id(value) for name, _, places in self._context if (value := _first(places, levels)) is not None
            }
        return _checked(found)

    def _type(self, value: Any, strict: bool = True) -> str:
        """The type of interaction; without `strict`, "" instead of an error."""
        if type(value) is str and (kind := self._types.get(value)) is not None:
            return kind
        if self._other == IGNORE:
            return IGNORE
        if not strict:
            return ""
        raise BadRecord(RejectReason.MISSING_FIELD if value is None else RejectReason.UNKNOWN_TYPE)


_OUR_NAMES: Final = frozenset(Interaction.__struct_fields__)


def _is_ours(raw: bytes) -> bool:
    """Whether a record that is no valid one of ours was meant to be: half of its members, or more, have our names."""
    try:
        record = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return False
    names = record.keys() if isinstance(record, dict) else set()
    return "type" in names and "user_id" in names and 2 * len(names & _OUR_NAMES) >= len(names)


@functools.lru_cache(1_000)
def _currency_of(text: str | None) -> str | None:
    """A currency that needs no further check."""
    currency = as_currency(text) if text else None
    if currency is not None and _CURRENCY.fullmatch(currency) is None:
        raise NotQuick
    return currency


def reader_of(given: InputMap, own: Callable[[bytes], tuple[Interaction, bool]]) -> Callable[[bytes], Mapped]:
    """A reader of a topic with records that the map `given` describes, beside some in our own format, read by `own`.

    Gateways and clients write the latter to the same topic: a record that the map finds no event in is tried as one.
    It raises :class:`BadRecord`, this function :class:`SettingsError`.
    """
    mappers = (
        [Mapper(given)] if given.preset is None else [Mapper(given.over(base)) for base in PRESET_MAPS[given.preset]]
    )

    def read(raw: bytes) -> Mapped:
        found, fault = None, None
        for mapper in mappers:
            try:
                if given.preset == "snowplow" and raw and is_tsv(raw):
                    check_size(raw, PAYLOAD_BYTES_MAX)
                    mapped = mapper.of_decoded(raw, record_of_tsv(raw))
                else:
                    mapped = mapper(raw)
            except BadRecord as bad:
                fault = bad
                continue
            if mapped.events:
                return mapped
            found = mapped if found is None or mapped.faults else found
        try:
            event, has_unknown_fields = own(raw)
        except BadRecord as bad:
            if _is_ours(raw):
                raise bad from None
            has_unknown_fields = True
        if not has_unknown_fields:
            return Mapped([event], 0, [])
        if found is None:
            assert fault is not None
            raise fault
        return found

    return read


def _arrays(whole: InputMap) -> list[Path]:
    """The paths of the arrays whose entries become events, outermost first."""
    each = [parse_path(text) for text in texts(whole.each)] if whole.each is not None else []
    for outer, inner in itertools.pairwise(each):
        if inner[: len(outer)] != outer or len(inner) == len(outer):
            raise SettingsError("input.map.each: the second array must be within the entries of the first")
    return each


def _steps(each: Sequence[Path]) -> list[Path]:
    """Each array's path within the entries of the one before."""
    return [path[len(before) :] for before, path in zip([(), *each], each, strict=False)]


def _field(name: str, entry: FieldMap, each: Sequence[Path]) -> _Field:
    read = reader_of_times(entry.form) if name == "ts" else _READERS.get(name, as_id)
    places = [place for text in texts(entry.path) for place in _places(name, parse_path(text), each)]
    return _Field(name, read, tuple(places))


def _places(name: str, path: Path, each: Sequence[Path]) -> list[Place]:
    """Where one path may lead, the innermost first."""
    places: list[Place] = []
    for level, array in reversed([*enumerate(each, start=1)]):
        beside = array[:-1]
        if path[: len(array)] == array and len(path) > len(array):
            return [*places, Place(level, path[len(array) :])]
        if name in OF_PRODUCTS and path[: len(beside)] == beside and len(path) > len(beside):
            places.append(Place(level, path[len(beside) :]))
    return [*places, Place(0, path)]


def _expanded(array: Sequence[Any], deeper: Callable[[Any], list[Any]]) -> list[Any]:
    """What `deeper` returns for the entries of `array`, which may be :data:`EVENTS_MAX` in all."""
    if len(array) > EVENTS_MAX:
        raise BadRecord(RejectReason.OUT_OF_RANGE)
    found = [one for entry in array for one in deeper(entry)]
    if len(found) > EVENTS_MAX:
        raise BadRecord(RejectReason.OUT_OF_RANGE)
    return found


def _quick_entries(quick: QuickReader, nodes: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    array = quick.arrays[len(nodes) - 1](nodes[-1])
    return _expanded(array, lambda entry: _quick_entries(quick, (*nodes, entry))) if array else [nodes]


def _checked(found: dict[str, Any]) -> Interaction:
    for name in ("user_id", "ts"):
        if name not in found:
            raise BadRecord(_MISSING.get(name, RejectReason.MISSING_FIELD))
    try:
        event: Interaction = _to_interaction(found)
    except msgspec.ValidationError as error:
        raise BadRecord(reason_of(error)) from None
    check_interaction(event)
    return event


def _first(places: Sequence[Place], levels: Sequence[Any]) -> Any:
    """The first value at `places`; :data:`schemas.wire.named_members.ABSENT` counts as none."""
    for level, path in places:
        if level < len(levels) and (value := walk(levels[level], path)) is not None and value not in ABSENT:
            return value
    return None
