"""The settings that say where records of others hold what an interaction has: the table `[input.map]`."""

from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from schemas.errors import SettingsError
from schemas.events import EVENT_TYPES, Interaction

Preset = Literal[
    "cloudevents",
    "ga4",
    "gorse",
    "metarank",
    "personalize",
    "rudderstack",
    "segment",
    "snowplow",
]
PRESETS: Final[tuple[str, ...]] = get_args(Preset)
TimeForm = Literal["rfc3339", "s", "ms", "us", "found"]
PathText = Annotated[str, Meta(min_length=1, max_length=512)]
PathTexts = PathText | Annotated[list[PathText], Meta(min_length=1, max_length=16)]
TargetType = Literal[
    "ignore", "impression", "view", "click", "scroll", "dwell", "search", "add_to_cart", "purchase", "rating"
]
Other = Literal["ignore", "reject"]
MAPPED: Final[tuple[str, ...]] = tuple(
    field.name for field in msgspec.structs.fields(Interaction) if field.name not in ("context", "schema_v")
)
"""The fields of an interaction that a map may name."""


class FieldMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"form": "as"}):
    """Where one field is, and how to read it."""

    path: PathTexts
    """The path, or several, of which the first that holds something counts."""
    form: TimeForm = "found"
    """Of `ts`: the form of the time. By default it is found: text is RFC 3339, and of numbers only one unit gives a
    date between 2000 and 2100.
    """
    values: dict[str, TargetType] | None = None
    """Of `type`: the type of interaction for each value found, or `ignore`."""
    other: Other | None = None
    """Of `type`: what becomes of a record with another value, or none."""


FieldSpec = PathText | list[PathText] | FieldMap


class InputMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where records of others hold what an interaction has. A path is names joined by dots: `properties.product_id`.

    `name[0]` is an entry of an array, and `name[key=x]` the first entry whose `key` is x. Of several paths, the first
    counts that holds something. In its long form, a setting is a table: `path`, and of `ts` its form `as` (`rfc3339`,
    `s`, `ms`, `us`, or by default `found`: text is RFC 3339, and of numbers only one unit gives a date between 2000 and
    2100), of `type` the `values` with their types, or `ignore`, and what becomes of `other` ones: `reject` or `ignore`.
    """

    preset: Preset | None = None
    """The map of a known format; what is set beside it replaces its entries."""
    each: PathTexts | None = None
    """The array whose entries become an event each; a second one is within the entries of the first. Paths that begin
    with it are read in the entry. So are those of `item_id`, `value`, `quantity` and `position` that begin where it
    begins: with `each = "properties.products"`, `properties.product_id` is the one of the product, if it has one.
    """
    event_id: FieldSpec | None = None
    """The id by which a repetition is recognised: by default, a digest of the whole record."""
    type: FieldSpec | None = None
    """The type of interaction. Without `values`, records must have one of our types."""
    ts: FieldSpec | None = None
    """When it happened."""
    user_id: FieldSpec | None = None
    """Who did it; whole numbers are ids, too."""
    session_id: FieldSpec | None = None
    """The visit."""
    item_id: FieldSpec | None = None
    """The item."""
    position: FieldSpec | None = None
    """The place in a list, from 0."""
    value: FieldSpec | None = None
    """A price, or a rating."""
    currency: FieldSpec | None = None
    """Three letters."""
    quantity: FieldSpec | None = None
    """How many."""
    surface: FieldSpec | None = None
    """Where on the site it happened."""
    request_id: FieldSpec | None = None
    """The id of the answer that showed the list."""
    query: FieldSpec | None = None
    """The text of a search."""
    scroll_pct: FieldSpec | None = None
    """How far the page was scrolled, in percent."""
    dwell_ms: FieldSpec | None = None
    """How long the user stayed, in ms."""
    context: dict[str, PathTexts] | None = None
    """The paths of the values of `context`, by their names."""

    def field(self, name: str) -> FieldMap | None:
        """The entry of the field `name`, in its long form."""
        given: Any = getattr(self, name)
        return given if given is None or isinstance(given, FieldMap) else FieldMap(given)

    def over(self, base: "InputMap") -> "InputMap":
        """This map with the entries of `base` where it has none. Of a type, the values of both count."""
        changes = {name: getattr(base, name) for name in ("each", *MAPPED) if getattr(self, name) is None}
        mine, below = self.field("type"), base.field("type")
        if mine is not None and below is not None and below.values is not None:
            changes["type"] = FieldMap(
                mine.path, "found", {**below.values, **(mine.values or {})}, mine.other or below.other
            )
        return msgspec.structs.replace(
            self, **changes, context={**(base.context or {}), **(self.context or {})} or None
        )


def texts(paths: PathTexts) -> list[str]:
    """One or several, as a list."""
    return [paths] if isinstance(paths, str) else list(paths)


def check_map(given: InputMap) -> None:
    """Raise :class:`SettingsError` for a map, whole with its preset, by which no record could be read."""
    for name in ("user_id", "ts", "type"):
        if given.field(name) is None:
            raise SettingsError(f'input.map has no {name}: name where records hold it, as {name} = "path.to.it"')
    for name in MAPPED:
        entry = given.field(name)
        if entry is None:
            continue
        if entry.form != "found" and name != "ts":
            raise SettingsError(f"input.map.{name}: only ts has a form (`as`)")
        if (entry.values is not None or entry.other is not None) and name != "type":
            raise SettingsError(f"input.map.{name}: only type has `values` and `other`")
    kind = given.field("type")
    assert kind is not None
    if kind.values is None and kind.other == "ignore":
        known = ", ".join(EVENT_TYPES)
        raise SettingsError(f'input.map.type: other = "ignore" needs values, which say what is not ignored ({known})')
