"""Which rows of a file count, and as which kind of event: for training, evaluation and replay alike."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models.cells import Cell, DecimalMark, numbers_of, texts_of
from schemas.errors import FileError
from schemas.events import EVENT_TYPES

NO_USER: Final = "no user"
NO_ITEM: Final = "no item"
UNKNOWN_KIND: Final = "unknown kind"
BAD_ITEM: Final = "item id with a character that no id may have"
SHOWN: Final = 3
"""How many values an error shows."""
_LENGTH_SHOWN_MAX: Final = 40
_WANTED: Final = {
    UNKNOWN_KIND: f"kinds are {', '.join(EVENT_TYPES)}: map others with --kinds, as in buy=purchase",
}


@dataclass(frozen=True)
class RowRules:
    """``kinds``: a name in the file → a kind of event. ``at_least``: a column, and the least number that counts."""

    kinds: tuple[tuple[str, str], ...] = ()
    at_least: tuple[str, float] | None = None

    @classmethod
    def parse(cls, kinds: str | None, at_least: str | None) -> "RowRules":
        """From the texts of ``--kinds`` and ``--at-least``; raises :class:`FileError`.

        >>> RowRules.parse("addtocart=add_to_cart,transaction=purchase", "rating=4")
        RowRules(kinds=(('addtocart', 'add_to_cart'), ('transaction', 'purchase')), at_least=('rating', 4.0))
        """
        return cls(() if kinds is None else _kinds(kinds), None if at_least is None else _at_least(at_least))

    def column(self) -> list[str]:
        """The column with the number, if any."""
        return [] if self.at_least is None else [self.at_least[0]]

    def kinds_of(self, cells: Sequence[Cell]) -> list[str | None]:
        """The kind of each row; a name that is not mapped stays."""
        texts, mapped = texts_of(cells), dict(self.kinds)
        return [None if text is None else mapped.get(text, text) for text in texts] if mapped else texts

    def too_low(self) -> str:
        """Why a row is left out."""
        column, least = self.at_least or ("", 0.0)
        return f"{column} below {least:g}, or not a number"

    def are_too_low(self, cells: Sequence[Cell], mark: DecimalMark = ".") -> list[bool]:
        """Whether each number of the column is below the least one, or unreadable."""
        least = 0.0 if self.at_least is None else self.at_least[1]
        return [not (isinstance(each, int | float) and each >= least) for each in numbers_of(cells, mark)]


def _kinds(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in text.split(","):
        name, _, kind = (each.strip() for each in part.rpartition("="))
        if not name or kind not in EVENT_TYPES:
            raise FileError(f"--kinds must be NAME=KIND,…, and {part!r} is not; kinds are {', '.join(EVENT_TYPES)}")
        pairs.append((name, kind))
    return tuple(pairs)


def _at_least(text: str) -> tuple[str, float]:
    column, _, number = (each.strip() for each in text.rpartition("="))
    try:
        least = float(number)
    except ValueError:
        least = float("nan")
    if not column or least != least or abs(least) == float("inf"):
        raise FileError(f"--at-least must be COLUMN=NUMBER, such as rating=4, and not {text!r}")
    return column, least


class Unusable:
    """Counts rows that cannot be used, by reason, and remembers some values of each reason, to show them."""

    def __init__(self, rows: Mapping[str, int]) -> None:
        self.rows = dict(rows)
        self._seen: dict[str, dict[str, None]] = {}

    def add(self, reason: str, rows: int, cells: Iterable[Cell] = ()) -> None:
        """Count some rows. ``cells`` are their values; never those of the user's column."""
        self.rows[reason] = self.rows.get(reason, 0) + rows
        seen = self._seen.setdefault(reason, {})
        for cell in cells:
            if len(seen) == SHOWN:
                break
            seen.setdefault("nothing" if cell is None else repr(str(cell)[:_LENGTH_SHOWN_MAX]))

    def message(self, source: str) -> str:
        """Why no row can be used, most frequent reason first: values that were seen, and what is wanted."""
        if not self.rows:
            return f"there are no rows in {source}"
        return f"no row of {source} can be used: " + "; ".join(
            f"{rows:,}: {reason}{self._shown(reason)}"
            for reason, rows in sorted(self.rows.items(), key=lambda each: -each[1])
        )

    def _shown(self, reason: str) -> str:
        seen = ", ".join(self._seen.get(reason, ()))
        wanted = _WANTED.get(reason)
        return (f", such as {seen}" if seen else "") + (f" ({wanted})" if wanted else "")
