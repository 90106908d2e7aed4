"""A quick reader of records by a map: it decodes only the members that the map names, already checked, to structs.

The decoder of structs skips what is not named, so a record of a kilobyte costs little more than a short one of ours. A
record that needs more than that, as a number written as text, makes it raise, and is read in the other way
(:mod:`schemas.wire.mapping`).
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from schemas.events import ID_LENGTH_MAX, Interaction
from schemas.wire.record_paths import Path

_ID: Final = Annotated[str, Meta(max_length=ID_LENGTH_MAX)] | int | None
_FIELDS: Final = [name for name in Interaction.__struct_fields__ if name not in ("context", "schema_v")]
_KINDS: Final[Mapping[str, Any]] = {
    **{field.name: field.type | None for field in msgspec.structs.fields(Interaction)},
    **dict.fromkeys(("event_id", "user_id", "session_id", "item_id", "request_id"), _ID),
    "currency": Annotated[str, Meta(max_length=3)] | None,
    "ts": str | float | int | None,
    "type": str | None,
}
_EVENT, _TYPE, _TS, _USER, _CURRENCY = map(_FIELDS.index, ("event_id", "type", "ts", "user_id", "currency"))
_NOTHING: Final = ("nothing", "nothing")
"""Before the values of each level, for fields that are nowhere; twice, as of one name `attrgetter` makes no tuple."""
ABSENT: Final = ("", " ", "(not set)")
"""Texts that stand for nothing; the last one is Google Analytics'."""
_NOTHINGS: Final = frozenset(ABSENT)
Values = tuple[Any, ...]


class Place(NamedTuple):
    """Where a field may be: at a path in the record (level 0) or in an entry of the array of that level."""

    level: int
    path: Path


class NotQuick(Exception):  # noqa: N818 - says that the other way of reading is needed
    """A record has not all that an interaction needs where it can be read quickly."""


class Converters(NamedTuple):
    """How a type, a time and a currency are read, a long id shortened, and a record named that has no id."""

    type: Callable[[str], Any]
    ts: Callable[[Any], int]
    currency: Callable[[str | None], str | None]
    id: Callable[[str], str]
    digest: Callable[[bytes], str]


class QuickReader(NamedTuple):
    """`decode` reads bytes; `arrays[n]` gets the entries of level n + 1 from a node of level n.

    `kind` gets the type that a record gives. `event` makes the interaction of some nodes, the record's first. All raise
    :class:`msgspec.ValidationError`, and the last :class:`NotQuick`, for what they cannot read.
    """

    decode: Callable[[bytes], Any]
    arrays: list[Callable[[Any], Any]]
    kind: Callable[[Any], Any]
    event: Callable[[Sequence[Any], bytes, str], Interaction]


class _Members:
    """The members that paths name, as they become a struct."""

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}

    def add(self, path: Path, kind: Any) -> str:
        """Note that `path` leads to a `kind`; returns the attributes that lead there. Raises :class:`NotQuick`."""
        name = path[0]
        if not isinstance(name, str):
            raise NotQuick
        known = self._members.get(name)
        if len(path) == 1:
            if known is not None and known is not kind:
                raise NotQuick
            self._members[name] = kind
            return self._attribute(name)
        if known is None:
            known = self._members[name] = _Members()
        if not isinstance(known, _Members):
            raise NotQuick
        return f"{self._attribute(name)}.{known.add(path[1:], kind)}"

    def _attribute(self, name: str) -> str:
        return f"f{list(self._members).index(name)}"

    def struct(self) -> Any:
        """A struct with these members, all of which may be missing. Its attribute `nothing` is None."""
        fields: list[tuple[str, Any, Any]] = []
        for name, member in self._members.items():
            kind = member.struct() if isinstance(member, _Members) else member
            fields.append((self._attribute(name), kind, kind() if isinstance(member, _Members) else None))
        names = {self._attribute(name): name for name in self._members}
        nothing = {"nothing": None}
        return msgspec.defstruct("Node", fields, rename=names, namespace=nothing, frozen=True, gc=False)


def quick_reader(
    fields: Mapping[str, Sequence[Place]], arrays: Sequence[Path], converters: Converters
) -> QuickReader | None:
    """A reader of `fields` by their places, `arrays` by level; None if the paths allow none."""
    try:
        return _quick_reader(fields, arrays, converters)
    except NotQuick:
        return None


def _quick_reader(fields: Mapping[str, Sequence[Place]], arrays: Sequence[Path], converters: Converters) -> QuickReader:
    entries: Any = None
    struct: Any = None
    of_level: list[dict[Place, str]] = []
    of_array: list[Callable[[Any], Any]] = [lambda node: None]
    for level in range(len(arrays), -1, -1):
        members = _Members()
        if level < len(arrays):
            of_array.insert(0, attrgetter(members.add(arrays[level], entries)))
        places = [(place, _KINDS[name]) for name, found in fields.items() for place in found if place.level == level]
        of_level.insert(0, {place: members.add(place.path, kind) for place, kind in places})
        struct = members.struct()
        entries = list[struct] | None
    [kind] = fields["type"]
    event = _event_reader(fields, of_level, converters)
    return QuickReader(msgspec.json.Decoder(struct).decode, of_array, attrgetter(of_level[0][kind]), event)


def _event_reader(
    fields: Mapping[str, Sequence[Place]], of_level: Sequence[Mapping[Place, str]], converters: Converters
) -> Callable[[Sequence[Any], bytes, str], Interaction]:
    """The function `event` of a :class:`QuickReader`."""
    values_of = [attrgetter(*_NOTHING, *attributes.values()) for attributes in of_level]
    picks = [_picking(fields, of_level[: depth + 1]) for depth in range(len(of_level))]
    ids = [at for at, name in enumerate(_FIELDS) if _KINDS[name] is _ID and name in fields]
    type_of, ts_of, currency_of, short, digest = converters
    values_of_record, has_currency = values_of[0], "currency" in fields

    def event(nodes: Sequence[Any], raw: bytes, suffix: str) -> Interaction:
        values = values_of_record(nodes[0])
        for level in range(1, len(nodes)):
            values += values_of[level](nodes[level])
        found = picks[len(nodes) - 1](values)
        for at in ids:
            if found[at].__class__ is int:
                found[at] = str(found[at])
        if found[_USER] is None or found[_TS] is None or not _NOTHINGS.isdisjoint(found):
            raise NotQuick
        event_id = found[_EVENT] or digest(raw)
        found[_EVENT] = short(event_id + suffix) if suffix else event_id
        found[_TYPE] = type_of(found[_TYPE])
        found[_TS] = ts_of(found[_TS])
        if has_currency:
            found[_CURRENCY] = currency_of(found[_CURRENCY])
        return Interaction(*found)

    return event


def _picking(
    fields: Mapping[str, Sequence[Place]], of_level: Sequence[Mapping[Place, str]]
) -> Callable[[Values], list[Any]]:
    """A function that picks the fields, in their order, from the values of all levels."""
    number: dict[Place, int] = {}
    begin = 0
    for attributes in of_level:
        number |= {place: begin + at for at, place in enumerate(attributes, start=len(_NOTHING))}
        begin += len(_NOTHING) + len(attributes)
    places = [[number[place] for place in fields.get(name, ()) if place in number] for name in _FIELDS]
    first = itemgetter(*[found[0] if found else 0 for found in places])
    others = [(at, found[1:]) for at, found in enumerate(places) if len(found) > 1]

    def pick(values: Values) -> list[Any]:
        found = list(first(values))
        for at, rest in others:
            if found[at] is None or found[at] in ABSENT:
                found[at] = next(
                    (one for number in rest if (one := values[number]) is not None and one not in ABSENT), None
                )
        return found

    return pick
