"""Options that describe a file of your own: of `demo` and `replay`, with the consent of its users, and of `model`."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import typer

from freshet.cli.shape import finite

if TYPE_CHECKING:
    from deploy.demo.replay import Choice
    from deploy.demo.table import Mapping
    from models.interactions import Columns

_KINDS: Final = "What the names in that column mean: buy=purchase,look=view."
_SEPARATOR: Final = "What separates the columns of a text file, such as ';', '::' or tab; default: found in the file."
_NAMES: Final = "Names of the columns of a text file without a header; default: 1, 2, 3 and so on."

COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "user": ("Column of the user (default user_id).", "COLUMN"),
    "item": ("Column of the item (default item_id).", "COLUMN"),
    "time": ("Column of the time: dates, or numbers in any usual unit (default ts).", "COLUMN"),
    "type": ("Column of the kind of event.", "COLUMN"),
    "type_constant": ("The kind of all rows, if no column has it.", "KIND"),
    "session": ("Column of the session.", "COLUMN"),
    "quantity": ("Column of the quantity.", "COLUMN"),
    "value": ("Column of the value.", "COLUMN"),
    "currency": ("Column of the currency.", "COLUMN"),
    "currency_constant": ("The currency of all rows.", "GBP"),
    "country": ("Column of the country.", "COLUMN"),
    "surface": ("Column of the surface.", "COLUMN"),
    "query": ("Column of the text of a search.", "COLUMN"),
    "name": ("Column of the item's name, for people to read.", "COLUMN"),
    "time_format": ("How dates are written, as for strptime.", "FORMAT"),
    "kinds": (_KINDS, "NAME=KIND,…"),
    "at_least": ("Send only rows whose number is not below this one: rating=4.", "COLUMN=NUMBER"),
    "separator": (_SEPARATOR, "TEXT"),
    "column_names": (_NAMES, "NAME,…"),
    "user_prefix": ("Text put before every user.", "TEXT"),
    "event_id_prefix": ("Event ids are TEXT:row (default: the file's name).", "TEXT"),
}
"""The fields of :class:`deploy.demo.table.Mapping`, which is not imported for help; a test compares the two."""
_Text = str | None
TRAINING: Final[dict[str, tuple[Any, str | None]]] = {
    "user": (
        Annotated[_Text, typer.Option(help="Column of the user; default: user_id, or pseudonym if there is none.")],
        None,
    ),
    "item": (Annotated[str, typer.Option(help="Column of the item.")], "item_id"),
    "time": (Annotated[str, typer.Option(help="Column of the time: dates, or numbers in any usual unit.")], "ts"),
    "kind": (Annotated[str, typer.Option(help="Column of the kind of an interaction.")], "type"),
    "every": (Annotated[_Text, typer.Option(metavar="KIND", help="Kind of all rows, if no column has it.")], None),
    "time_format": (
        Annotated[_Text, typer.Option(metavar="FORMAT", help="How dates are written, as for strptime: %d/%m/%Y.")],
        None,
    ),
    "quantity": (
        Annotated[_Text, typer.Option(help="Column of a quantity; rows not above zero are dropped.")],
        None,
    ),
    "kinds": (Annotated[_Text, typer.Option(metavar="NAME=KIND,…", help=_KINDS)], None),
    "at_least": (
        Annotated[
            _Text,
            typer.Option(metavar="COLUMN=NUMBER", help="Drop rows whose number is below this one: rating=4."),
        ],
        None,
    ),
    "separator": (Annotated[_Text, typer.Option(metavar="TEXT", help=_SEPARATOR)], None),
    "column_names": (Annotated[_Text, typer.Option(metavar="NAME,…", help=_NAMES)], None),
}
"""The options of `model train` and `model evaluate` that describe a file, and their defaults."""
Share = Annotated[
    float, typer.Option(min=0, max=1, callback=finite, metavar="0..1", help="Share of the users who consent.")
]
Level = Annotated[Literal["none", "session", "full"], typer.Option(help="The level that they consent to.")]
Preset = Annotated[str | None, typer.Option(help="A known mapping, such as online-retail; other options change it.")]


class FileOptions(NamedTuple):
    """The values of these options."""

    preset: str | None
    columns: dict[str, str]
    consent_share: float
    consent_level: Literal["none", "session", "full"]

    def is_given(self) -> bool:
        """Whether any of them has another value than its default."""
        return self != FileOptions(None, {}, 1.0, "full")

    def mapping(self) -> "Mapping":
        """Which column maps to which field. Raises :class:`deploy.demo.table.MappingError`."""
        from deploy.demo.replay import mapping_of

        return mapping_of(self.preset, self.columns)

    def choice(self) -> "Choice":
        """What the users of the file consent to."""
        from deploy.demo.replay import Choice

        return Choice(self.consent_share, self.consent_level)


def with_file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add all of these options to `function`, in place of its parameter `of_file`."""
    signature = inspect.signature(function)
    named = [_parameter("preset", Preset, None)]
    named += [_parameter(name, _column(text, metavar), None) for name, (text, metavar) in COLUMNS.items()]
    named += [_parameter("consent_share", Share, 1.0), _parameter("consent_level", Level, "full")]

    @functools.wraps(function)
    def wrapper(**given: Any) -> Any:
        columns = {name: value for name in COLUMNS if (value := given.pop(name)) is not None}
        options = FileOptions(given.pop("preset"), columns, given.pop("consent_share"), given.pop("consent_level"))
        return function(**given, of_file=options)

    own = [each.replace(kind=each.KEYWORD_ONLY) for each in signature.parameters.values() if each.name != "of_file"]
    wrapper.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
    return wrapper


class TrainingFile(NamedTuple):
    """The values of the options that describe a file to train or evaluate on; see `TRAINING`."""

    user: str | None
    item: str
    time: str
    kind: str
    every: str | None
    time_format: str | None
    quantity: str | None
    kinds: str | None
    at_least: str | None
    separator: str | None
    column_names: str | None

    def columns(self) -> "Columns":
        """The columns of the file, with the default user. Raises :class:`schemas.errors.FileError`."""
        from models.csv_files import Layout
        from models.interactions import Columns
        from models.row_rules import RowRules

        return Columns(
            item=self.item,
            time=self.time,
            kind=self.kind,
            every=self.every,
            quantity=self.quantity,
            time_form=self.time_format,
            layout=Layout.parse(self.separator, self.column_names),
            rules=RowRules.parse(self.kinds, self.at_least),
        )


def with_training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of :class:`TrainingFile` to `function`, in place of its parameter `of_file`."""
    signature = inspect.signature(function)
    named = [_parameter(name, annotation, default) for name, (annotation, default) in TRAINING.items()]

    @functools.wraps(function)
    def wrapper(**given: Any) -> Any:
        of_file = TrainingFile(**{name: given.pop(name) for name in TRAINING})
        return function(**given, of_file=of_file)

    own = [each.replace(kind=each.KEYWORD_ONLY) for each in signature.parameters.values() if each.name != "of_file"]
    wrapper.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
    return wrapper


def _column(text: str, metavar: str) -> Any:
    return Annotated[str | None, typer.Option(metavar=metavar, help=text)]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
