"""Replay a CSV, Parquet or JSON-lines file of your own into a running product: ``python -m deploy.demo.replay FILE …``.

Consents first, and their receipts are waited for; then every row, dirty ones too. For the Online Retail data::

    python -m deploy.demo.replay online-retail.parquet --preset online-retail
"""

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, get_args

import msgspec

from deploy.demo.endpoints import ENDPOINTS_PATH, load_endpoints
from deploy.demo.producer import Producer
from deploy.demo.receipts import ConsentWaiter, waiting_for_consents
from deploy.demo.table import PRESETS, Mapping, Reading, interactions_of, reading_of, users_of
from models.cells import ROWS_PER_CHUNK
from schemas.consents import ConsentChange, LevelName
from schemas.errors import FreshetError
from schemas.pseudonyms import Pseudonymiser, load_key_ring
from schemas.wire.consent_records import is_user_id

RECEIPT_TIMEOUT_S: Final = 60.0
CONSENTS_IN_FLIGHT_MAX: Final = 20_000
LEVEL_NAMES: Final[tuple[LevelName, ...]] = get_args(LevelName)


class Choice(NamedTuple):
    """What the users of a file consent to: a `share` of them to `level`, the others to nothing."""

    share: float = 1.0
    level: LevelName = "full"


class ReplayCounts(NamedTuple):
    """What was sent, all of it acknowledged by Kafka, and the seconds that the interactions took.

    `remarks`: how the file was read, which rows could not be sent, and which times were sent as they are.
    """

    consents: int
    interactions: int
    without_user: int
    seconds: float
    remarks: tuple[str, ...] = ()


def level_of(user_id: str, choice: Choice) -> LevelName:
    """The choice of one user, by a hash of the id: the same in every replay.

    >>> level_of("ada", Choice(1.0)), level_of("ada", Choice(0.0))
    ('full', 'none')
    """
    part = int.from_bytes(hashlib.sha256(user_id.encode()).digest()[:8], "big") / 2**64
    return choice.level if part < choice.share else "none"


def consents_of(path: Path, mapping: Mapping, choice: Choice, at_ms: int) -> Iterator[ConsentChange]:
    """The consent of each user of the file, in the order in which they appear.

    Of a user id that no consent may have none is sent: the job would refuse it, and no receipt would ever come. The
    rows are sent all the same, and are dead letters.
    """
    for user in users_of(path, mapping):
        if is_user_id(user):
            yield ConsentChange(user, level_of(user, choice), at_ms, method="replay")


class Replay:
    """A replay into one product. `say` is told of the progress; `stopped` ends it early, between two rows."""

    def __init__(
        self,
        producer: Producer,
        say: Callable[[str], None] = lambda line: None,
        stopped: Callable[[], bool] = lambda: False,
        on_row: Callable[[bytes | None, bytes], None] | None = None,
    ) -> None:
        self._producer = producer
        self._say = say
        self._stopped = stopped
        self._on_row = on_row
        self._readings: dict[tuple[Path, Mapping], Reading] = {}

    def run(
        self,
        path: Path,
        mapping: Mapping,
        choice: Choice,
        waiter: ConsentWaiter,
        pseudonymiser: Pseudonymiser,
        at_ms: int,
        speed: float | None = None,
    ) -> ReplayCounts:
        """Consents, their receipts, then the rows; `speed` in rows a second, None is as fast as Kafka takes them."""
        consents = self.send_consents(path, mapping, choice, waiter, pseudonymiser, at_ms)
        return self.send_rows(path, mapping, speed)._replace(consents=consents)

    def send_consents(
        self,
        path: Path,
        mapping: Mapping,
        choice: Choice,
        waiter: ConsentWaiter,
        pseudonymiser: Pseudonymiser,
        at_ms: int,
    ) -> int:
        """Send the consents in portions and wait for the receipts of each. Returns how many were sent.

        Raises :class:`~deploy.demo.table.MappingError` before the first for a file whose rows could not be sent."""
        self._reading(path, mapping)
        sent, portion = 0, set[str]()
        for change in consents_of(path, mapping, choice, at_ms):
            self._producer.send_consent(change)
            portion.add(pseudonymiser.user(change.user_id))
            sent += 1
            if len(portion) == CONSENTS_IN_FLIGHT_MAX:
                self._await(portion, waiter, sent)
                portion = set()
        self._await(portion, waiter, sent)
        return sent

    def _reading(self, path: Path, mapping: Mapping) -> Reading:
        if (path, mapping) not in self._readings:
            self._readings[path, mapping] = reading_of(path, mapping)
        return self._readings[path, mapping]

    def _await(self, portion: set[str], waiter: ConsentWaiter, sent: int) -> None:
        self._producer.flush()
        waiter.wait(
            portion,
            RECEIPT_TIMEOUT_S,
            lambda missing: self._say(f"consents in force: {sent - missing:,}"),
            self._stopped,
        )

    def send_rows(self, path: Path, mapping: Mapping, speed: float | None = None) -> ReplayCounts:
        """Send every row. Returns when Kafka has acknowledged all of them."""
        reading, remarks = self._reading(path, mapping), Counter[str]()
        rows_between_flushes = ROWS_PER_CHUNK if speed is None else max(1, min(ROWS_PER_CHUNK, int(speed)))
        begun, sent, without_user = time.monotonic(), 0, 0
        send, on_row = self._producer.send_raw_interaction, self._on_row
        for key, payload in interactions_of(path, mapping, remarks, reading):
            if speed is not None and not self._pace(begun + sent / speed):
                break
            send(key, payload)
            if on_row is not None:
                on_row(key, payload)
            sent += 1
            without_user += key is None
            if sent % rows_between_flushes == 0:
                # kafka-python's buffer has no bound of its own.
                self._producer.flush()
                self._say(progress(sent, reading.table.rows, time.monotonic() - begun))
                if self._stopped():
                    break
        self._producer.flush()
        seconds = time.monotonic() - begun
        self._say(progress(sent, reading.table.rows, seconds))
        told = (f"{reason}: {rows:,}" for reason, rows in sorted(remarks.items()))
        return ReplayCounts(0, sent, without_user, seconds, (*reading.notes, *told))

    def _pace(self, due: float) -> bool:
        """Wait until `due`; False if the replay was stopped meanwhile."""
        while not self._stopped():
            left = due - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, 0.1))
        return False


def replay(
    path: Path,
    mapping: Mapping,
    producer: Producer,
    *,
    waiter: ConsentWaiter,
    pseudonymiser: Pseudonymiser,
    at_ms: int,
    choice: Choice | None = None,
    speed: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ReplayCounts:
    """Send the consents of the file's users, wait until they are in force, send every row; see :class:`Replay`."""
    return Replay(producer, say).run(path, mapping, choice or Choice(), waiter, pseudonymiser, at_ms, speed)


def progress(sent: int, total: int | None, seconds: float) -> str:
    """
    >>> progress(20_000, 80_000, 2.0)
    'rows sent: 20,000 of 80,000 (25 %), 10,000 a second'
    """
    part = "" if total is None else f" of {total:,} ({100 * sent // max(total, 1)} %)"
    return f"rows sent: {sent:,}{part}, {sent / max(seconds, 1e-3):,.0f} a second"


def add_mapping_options(parser: argparse.ArgumentParser) -> None:
    """The options from which :func:`mapping_from` makes a mapping; their names are those of its fields."""
    group = parser.add_argument_group("columns of the file")
    group.add_argument("--preset", choices=sorted(PRESETS), help="a mapping that is known; other options change it")
    for field in msgspec.structs.fields(Mapping):
        text, metavar = _HELP.get(field.name, (f"column of the {field.name}", "COLUMN"))
        group.add_argument(f"--{field.name.replace('_', '-')}", default=None, metavar=metavar, help=text)
    choice = parser.add_argument_group("consent of the users in the file")
    choice.add_argument("--consent-share", type=_share, default=1.0, metavar="0..1", help="who consents (default 1.0)")
    choice.add_argument("--consent-level", choices=LEVEL_NAMES, default="full", help="to what (default full)")


_HELP: Final[dict[str, tuple[str, str]]] = {
    "user": ("column of the user (default user_id)", "COLUMN"),
    "item": ("column of the item (default item_id)", "COLUMN"),
    "time": ("column of the time: dates, or numbers in any usual unit (default ts)", "COLUMN"),
    "type": ("column of the kind of event", "COLUMN"),
    "type_constant": ("the kind of all rows, where no column says it", "KIND"),
    "currency_constant": ("the currency of all rows", "GBP"),
    "name": ("column of the item's name, for people to read", "COLUMN"),
    "time_format": ("how dates are written, as for strptime", "FORMAT"),
    "user_prefix": ("text put before every user", "TEXT"),
    "event_id_prefix": ("event ids are TEXT:row (default: the file's name)", "TEXT"),
}


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("a share is between 0 and 1")
    return share


def mapping_from(options: argparse.Namespace) -> Mapping:
    """The mapping that the options describe: the preset, or the default, with what was given changed."""
    preset = PRESETS[options.preset] if options.preset else Mapping()
    names = (field.name for field in msgspec.structs.fields(Mapping))
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return msgspec.structs.replace(preset, **given)


def choice_from(options: argparse.Namespace) -> Choice:
    """What the options say about consent."""
    return Choice(options.consent_share, options.consent_level)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; needs a product that is up. Returns the exit code."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m deploy.demo.replay", description=summary, epilog=details, formatter_class=form
    )
    parser.add_argument("file", type=Path, help="CSV, Parquet or JSON-lines")
    parser.add_argument("--speed", type=float, metavar="N", help="rows a second (default: as fast as Kafka takes them)")
    parser.add_argument("--endpoints", type=Path, default=ENDPOINTS_PATH, metavar="FILE", help="endpoints.json")
    add_mapping_options(parser)
    options = parser.parse_args(arguments)
    try:
        counts = _replay_file(options)
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(
        f"sent {counts.interactions:,} interactions, {counts.without_user:,} of them without a user, "
        f"and {counts.consents:,} consents in {counts.seconds:.1f} s"
    )
    for line in counts.remarks:
        print(line)
    return 0


def _replay_file(options: argparse.Namespace) -> ReplayCounts:
    endpoints = load_endpoints(options.endpoints)
    pseudonymiser = Pseudonymiser(load_key_ring(endpoints.key_ring))
    producer = Producer(endpoints.kafka_settings(), bulk=options.speed is None)
    try:
        with waiting_for_consents(endpoints.kafka_settings()) as waiter:
            counts = replay(
                options.file,
                mapping_from(options),
                producer,
                waiter=waiter,
                pseudonymiser=pseudonymiser,
                at_ms=time.time_ns() // 1_000_000,
                choice=choice_from(options),
                speed=options.speed,
                say=lambda line: print(line, flush=True),
            )
    except BaseException:
        producer.abandon()
        raise
    producer.close()
    return counts


if __name__ == "__main__":
    raise SystemExit(main())
