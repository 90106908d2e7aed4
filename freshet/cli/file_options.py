"""Options of `demo` and `replay` that describe a file of your own, and the consent of its users."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import typer

if TYPE_CHECKING:
    from deploy.demo.replay import Choice
    from deploy.demo.table import Mapping

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
    "user_prefix": ("Text put before every user.", "TEXT"),
    "event_id_prefix": ("Event ids are TEXT:row (default: the file's name).", "TEXT"),
}
"""The fields of :class:`deploy.demo.table.Mapping`, which is not imported for help; a test compares the two."""
Share = Annotated[float, typer.Option(min=0, max=1, metavar="0..1", help="Share of the users who consent.")]
Level = Annotated[Literal["none", "session", "full"], typer.Option(help="The level that they consent to.")]
Preset = Annotated[str | None, typer.Option(help="A known mapping, such as online-retail; other options change it.")]


class FileOptions(NamedTuple):
    """The values of these options."""

    preset: str | None
    columns: dict[str, str]
    consent_share: float
    consent_level: Literal["none", "session", "full"]

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


def _column(text: str, metavar: str) -> Any:
    return Annotated[str | None, typer.Option(metavar=metavar, help=text)]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
