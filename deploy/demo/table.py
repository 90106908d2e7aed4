"""Converts the rows of a user's file (:mod:`models.files`) to the payloads that a shop would send, column by column.

Every row is sent unchanged, including dirty ones: a negative quantity stays negative, a missing user is left out, and a
time that cannot be parsed is sent as its original text. The job rejects such rows, each with a reason. Two kinds of
rows are not sent: those that do not match the table, such as a line with too few fields, and those whose id lost digits
or is ambiguous, because it might be somebody else's id. All are counted by reason.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from models.cells import LOST_DIGITS, Cell, Chunk, DecimalMark, numbers_of, rows_with_lost_digits, texts_of
from models.csv_files import Layout
from models.decimals import count_ambiguous
from models.files import Table, open_table
from models.row_rules import BAD_ITEM, NO_ITEM, NO_USER, UNKNOWN_KIND, RowRules, Unusable
from models.times import (
    TWO_READINGS,
    DateOrder,
    Unit,
    check_form,
    describe_order,
    describe_unit,
    has_two_readings,
    milliseconds_of,
)
from models.whole_ids import TWO_WRITINGS, IdEvidence, as_floats, pointed_rows
from schemas.errors import FileError, FreshetError
from schemas.events import EVENT_TS_MAX, EVENT_TS_MIN, EVENT_TYPES, ITEM_REQUIRED, KIND_OF
from schemas.ids import is_id
from schemas.wire.consent_records import is_user_id

PREFIX_LENGTH_MAX: Final = 48
"""The length of a file's name in its event ids, which are limited to 64 characters."""
UNCLEAR_NUMBER: Final = (
    "a number such as 1,234 in a column with decimal points and decimal commas: sent as it is, and the job rejects it"
)
UNKNOWN_KIND_SENT: Final = "an unknown kind: sent as it is, and the job rejects it"
BAD_USER: Final = "a user id that is empty, too long, or has a character that no id may have"
TIME_OUT_OF_RANGE: Final = "a time before 2000 or after 9999, which the job rejects as one of a wrong clock"
UNREAD_TIME: Final = "a time that cannot be read: sent as it is, and the job rejects it"


class MappingError(FreshetError):
    """The file cannot be read with this mapping; the text says what to change."""


class Mapping(msgspec.Struct, frozen=True):
    """Maps the columns of a file to fields. None: the file has no such column, and the field is left out.

    `type_constant` is the type of all rows if there is no type column, `currency_constant` likewise. `user_prefix` is
    put before every user id. Event ids are ``<event_id_prefix>:<row>``, with rows counted from 0; the default prefix is
    the file's name. `time_format` is a `strptime` format for ambiguous dates; numeric times need none. `name` is the
    item's name, for display; it is not sent. `kinds` maps names in the type column to kinds of events,
    ``buy=purchase,look=view``; `at_least` is the least number of a column that counts, ``rating=4``: other rows are not
    sent. `separator` and `column_names` describe a text file (:class:`models.csv_files.Layout`).
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str = "ts"
    type: str | None = None
    type_constant: str | None = None
    session: str | None = None
    quantity: str | None = None
    value: str | None = None
    currency: str | None = None
    currency_constant: str | None = None
    country: str | None = None
    surface: str | None = None
    query: str | None = None
    name: str | None = None
    time_format: str | None = None
    kinds: str | None = None
    at_least: str | None = None
    separator: str | None = None
    column_names: str | None = None
    user_prefix: str = ""
    event_id_prefix: str | None = None

    def layout(self) -> Layout:
        """How a text file is separated; raises :class:`~schemas.errors.FileError`."""
        return Layout.parse(self.separator, self.column_names)

    def rules(self) -> RowRules:
        """Which rows are sent, and as which kind; raises :class:`~schemas.errors.FileError`."""
        return RowRules.parse(self.kinds, self.at_least)

    def columns(self) -> list[str]:
        """The columns that the file must have."""
        fields = (self.user, self.item, self.time, self.type, self.session, self.quantity, self.value)
        others = (self.currency, self.country, self.surface, self.query, *self.rules().column())
        return [column for column in (*fields, *others) if column is not None]

    def ids(self) -> list[str]:
        """The columns with ids."""
        return [column for column in (self.user, self.item, self.session) if column is not None]


ONLINE_RETAIL: Final = Mapping(
    user="customer_id",
    item="stock_code",
    time="invoice_ts",
    type_constant="purchase",
    session="invoice",
    quantity="quantity",
    value="unit_price",
    currency_constant="GBP",
    country="country",
    name="description",
    user_prefix="customer-",
)
PRESETS: Final[dict[str, Mapping]] = {"online-retail": ONLINE_RETAIL}


class _Row(msgspec.Struct, omit_defaults=True, gc=False):
    """An unvalidated interaction: the fields of :class:`schemas.events.Interaction`, all optional."""

    event_id: str
    type: Any = None
    ts: Any = None
    user_id: Any = None
    session_id: Any = None
    item_id: Any = None
    value: Any = None
    currency: Any = None
    quantity: Any = None
    surface: Any = None
    query: Any = None
    context: Any = None


class Reading(NamedTuple):
    """How a file is parsed, inferred from all rows: the decimal marks of columns, their ids, the unit of times.

    `notes` describe it; `guessed`: sentence → number of values whose format is ambiguous.
    """

    table: Table
    marks: dict[str, DecimalMark]
    ids: IdEvidence
    unit: Unit | None
    order: DateOrder | None
    notes: tuple[str, ...]
    guessed: dict[str, int]


def reading_of(path: Path, mapping: Mapping) -> Reading:
    """How to parse the file. Raises :class:`MappingError` if the file or the mapping cannot be used."""
    table = check(path, mapping)
    numbers = [column for column in (mapping.value, mapping.quantity, *mapping.rules().column()) if column is not None]
    try:
        evidence, ids, unit, order = table.evidence(numbers, mapping.ids(), mapping.time, mapping.time_format)
    except FileError as error:
        raise MappingError(str(error)) from None
    units = describe_unit(None if mapping.time in table.times else unit, mapping.time)
    notes = (*table.notes, *ids.notes(), *units, *describe_order(order, mapping.time))
    return Reading(table, evidence.marks(), ids, unit, order, notes, evidence.guessed())


def interactions_of(
    path: Path, mapping: Mapping, remarks: Counter[str] | None = None, reading: Reading | None = None
) -> Iterator[tuple[bytes | None, bytes]]:
    """(key, payload) of every row in file order; the key is None if there is no user.

    ``remarks`` counts, by reason, the rows that could not be sent and the times that could not be parsed. ``reading``
    is the result of :func:`reading_of`, if already known.
    """
    remarks = Counter() if remarks is None else remarks
    reading, rules = reading or reading_of(path, mapping), mapping.rules()
    remarks.update(reading.guessed)
    prefix = mapping.event_id_prefix or _id_of(path.stem)
    encode = msgspec.json.Encoder().encode
    first = 0
    for chunk in _chunks(reading.table, mapping.columns(), mapping.ids(), remarks, reading.ids):
        if rules.at_least is not None:
            chunk = _high_enough(chunk, rules, reading, remarks)
        users = _prefixed(texts_of(chunk[mapping.user]), mapping.user_prefix)
        keys = [None if user is None else user.encode() for user in users]
        fields = _fields(chunk, mapping, rules, users, reading, remarks)
        rows = map(_Row, _event_ids(prefix, first, len(users)), *fields)
        yield from zip(keys, map(encode, rows), strict=True)
        first += len(users)


def expect_usable(path: Path, mapping: Mapping, reading: Reading) -> None:
    """Raise :class:`MappingError` if the job would reject every row, with values that were seen and what is wanted.

    Reads the file up to its first usable row.
    """
    left_out, rules, unusable = Counter[str](), mapping.rules(), Unusable({})
    for chunk in _chunks(reading.table, mapping.columns(), mapping.ids(), left_out, reading.ids):
        if rules.at_least is not None and (low := _low_rows(chunk, rules, reading)):
            unusable.add(rules.too_low(), len(low), (chunk[rules.at_least[0]][row] for row in low))
            chunk = _without(chunk, set(low))
        if _has_usable_row(chunk, mapping, rules, reading, unusable):
            return
    for reason, rows in left_out.items():
        unusable.add(reason, rows)
    raise MappingError("; ".join([f"nothing was sent: {unusable.message(path.name)}", *reading.notes]))


def _has_usable_row(chunk: Chunk, mapping: Mapping, rules: RowRules, reading: Reading, unusable: Unusable) -> bool:
    """Whether the job could accept a row; if it could not, all of them are counted in ``unusable``."""
    users = _prefixed(texts_of(chunk[mapping.user]), mapping.user_prefix)
    items = texts_of(chunk[mapping.item])
    kinds = _kinds(chunk, mapping, rules, len(users))
    times = milliseconds_of(chunk[mapping.time], mapping.time_format, reading.unit, reading.order)
    found: dict[str, list[Cell]] = {}
    for row, (user, item, kind, ms) in enumerate(zip(users, items, kinds, times, strict=True)):
        if user is None or not is_user_id(user):
            found.setdefault(NO_USER if user is None else BAD_USER, []).append(None)
        elif kind not in KIND_OF:
            found.setdefault(UNKNOWN_KIND, []).append(kind)
        elif not item and kind in ITEM_REQUIRED:
            found.setdefault(NO_ITEM, []).append(None)
        elif item and not is_id(item):
            found.setdefault(BAD_ITEM, []).append(item)
        elif ms is None:
            found.setdefault(UNREAD_TIME, []).append(chunk[mapping.time][row])
        elif not EVENT_TS_MIN <= ms <= EVENT_TS_MAX:
            found.setdefault(TIME_OUT_OF_RANGE, []).append(chunk[mapping.time][row])
        else:
            return True
    for reason, cells in found.items():
        unusable.add(reason, len(cells), () if reason in (NO_USER, BAD_USER, NO_ITEM) else cells)
    return False


def _low_rows(chunk: Chunk, rules: RowRules, reading: Reading) -> list[int]:
    """The indices of the rows that do not count."""
    [column] = rules.column()
    return [row for row, low in enumerate(rules.are_too_low(chunk[column], reading.marks.get(column, "."))) if low]


def _high_enough(chunk: Chunk, rules: RowRules, reading: Reading, remarks: Counter[str]) -> Chunk:
    low = _low_rows(chunk, rules, reading)
    remarks.update({f"{rules.too_low()}: not sent": len(low)} if low else {})
    return _without(chunk, set(low))


def _without(chunk: Chunk, rows: set[int]) -> Chunk:
    if not rows:
        return chunk
    return {column: [cell for row, cell in enumerate(cells) if row not in rows] for column, cells in chunk.items()}


def users_of(path: Path, mapping: Mapping) -> list[str]:
    """The users of the file, each once, in order of first appearance."""
    return [user for user in dict.fromkeys(users_of_rows(path, mapping)) if user is not None]


def users_of_rows(path: Path, mapping: Mapping) -> Iterator[str | None]:
    """The user of every row, or None."""
    for chunk in _chunks(check(path, mapping), [mapping.user], [mapping.user], Counter()):
        yield from _prefixed(texts_of(chunk[mapping.user]), mapping.user_prefix)


def names_of(path: Path, mapping: Mapping) -> dict[str, str]:
    """Item id → its last name in the file; empty if the mapping has no column for names."""
    names: dict[str, str] = {}
    if mapping.name is None:
        return names
    for chunk in _chunks(check(path, mapping, mapping.name), [mapping.item, mapping.name], [mapping.item], Counter()):
        pairs = zip(texts_of(chunk[mapping.item]), texts_of(chunk[mapping.name]), strict=True)
        names.update((item, name) for item, name in pairs if item and name)
    return names


def check(path: Path, mapping: Mapping, *more: str) -> Table:
    """The file as a table; raises :class:`MappingError` if the file or the mapping cannot be used."""
    if path.is_dir():
        raise MappingError(f"{path} is a folder: name a file")
    if mapping.type is None and mapping.type_constant is None:
        raise MappingError("give the kind of the rows: --type COLUMN, or --type-constant purchase")
    if mapping.type_constant is not None and mapping.type_constant not in EVENT_TYPES:
        raise MappingError(f"--type-constant {mapping.type_constant} is not a kind; kinds are {', '.join(EVENT_TYPES)}")
    try:
        check_form(mapping.time_format)
        table = open_table(path, mapping.layout())
        missing = [column for column in (*mapping.columns(), *more) if column not in table.names]
    except FileError as error:
        raise MappingError(str(error)) from None
    if missing:
        raise MappingError(f"{path.name} has no column {', '.join(missing)}; {table.names_text()}")
    return table


def _chunks(
    table: Table, columns: list[str], ids: list[str], remarks: Counter[str], written: IdEvidence | None = None
) -> Iterator[Chunk]:
    try:
        written = written or table.ids(ids)
        for chunk in table.chunks(columns, remarks):
            yield _with_clear_ids(chunk, ids, written, remarks)
    except FileError as error:
        raise MappingError(str(error)) from None


def _with_clear_ids(chunk: Chunk, ids: list[str], written: IdEvidence, remarks: Counter[str]) -> Chunk:
    """The rows whose ids have all their digits and are unambiguous."""
    floats, mixed = written.floats(), written.mixed()
    chunk = chunk | {column: as_floats(chunk[column]) for column in ids if column in floats}
    rounded = {row for column in ids for row in rows_with_lost_digits(chunk[column])}
    unclear = {row for column in ids if column in mixed for row in pointed_rows(chunk[column])} - rounded
    if not rounded and not unclear:
        return chunk
    remarks.update({LOST_DIGITS: len(rounded)} if rounded else {})
    remarks.update({TWO_WRITINGS: len(unclear)} if unclear else {})
    return _without(chunk, rounded | unclear)


def _kinds(chunk: Chunk, mapping: Mapping, rules: RowRules, rows: int) -> Sequence[str | None]:
    """The kind of every row; an unknown one stays as it is."""
    return [mapping.type_constant] * rows if mapping.type is None else rules.kinds_of(chunk[mapping.type])


def _fields(
    chunk: Chunk,
    mapping: Mapping,
    rules: RowRules,
    users: list[str | None],
    reading: Reading,
    remarks: Counter[str],
) -> list[Any]:
    """The columns of :class:`_Row` after the event id, each an iterable with one value per row."""

    def texts(column: str | None, constant: str | None = None) -> Any:
        return repeat(constant) if column is None else texts_of(chunk[column])

    def numbers(column: str | None) -> Any:
        if column is None:
            return repeat(None)
        mark = reading.marks.get(column, ".")
        if mark == "?" and (count := count_ambiguous(chunk[column], mark)):
            remarks[UNCLEAR_NUMBER] += count
        return numbers_of(chunk[column], mark)

    kinds = _kinds(chunk, mapping, rules, len(users))
    if unknown := sum(map(KIND_OF.keys().__contains__, kinds)) - len(kinds):
        remarks[UNKNOWN_KIND_SENT] -= unknown
    countries: Any = repeat(None)
    if mapping.country:
        countries = [None if name is None else {"country": name} for name in texts(mapping.country)]
    return [
        kinds,
        _times(chunk[mapping.time], mapping.time_format, reading, remarks),
        users,
        texts(mapping.session),
        texts(mapping.item),
        numbers(mapping.value),
        texts(mapping.currency, mapping.currency_constant),
        numbers(mapping.quantity),
        texts(mapping.surface),
        texts(mapping.query),
        countries,
    ]


def _id_of(name: str) -> str:
    """
    >>> _id_of("my shop")
    'my shop'
    """
    return "".join(each if is_id(each) else "_" for each in name[:PREFIX_LENGTH_MAX])


def _prefixed(texts: list[str | None], prefix: str) -> list[str | None]:
    return [None if text is None else prefix + text for text in texts] if prefix else texts


def _times(cells: list[Cell], form: str | None, reading: Reading, remarks: Counter[str]) -> list[Cell]:
    """Times in ms since the epoch; values that cannot be parsed stay unchanged."""
    times: list[Cell] = list(milliseconds_of(cells, form, reading.unit, reading.order))
    for row, cell in enumerate(cells):
        if times[row] is None and cell is not None:
            times[row] = cell
            remarks[TWO_READINGS if has_two_readings(cell, reading.order) else UNREAD_TIME] += 1
    return times


def _event_ids(prefix: str, first: int, count: int) -> list[str]:
    return [f"{prefix}:{row}" for row in range(first, first + count)]
