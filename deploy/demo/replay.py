"""Replays a CSV, Parquet or JSON-lines file into a running product (`freshet replay`).

Sends the consents, waits for their receipts, and then sends every row, including dirty ones. Sends nothing if the job
would reject every row.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from adapters.secrets.key_rings import load_key_ring
from deploy.demo.endpoints import load_endpoints
from deploy.demo.producer import Producer
from deploy.demo.receipts import ConsentWaiter, waiting_for_consents
from deploy.demo.table import (
    PRESETS,
    Mapping,
    MappingError,
    Reading,
    expect_usable,
    interactions_of,
    reading_of,
    users_of,
)
from models.cells import ROWS_PER_CHUNK
from schemas.consents import ConsentChange, LevelName
from schemas.pseudonyms import Pseudonymiser
from schemas.wire.consent_records import is_user_id

RECEIPT_TIMEOUT_S: Final = 60.0
CONSENTS_IN_FLIGHT_MAX: Final = 20_000
Say = Callable[[str], None]


class Choice(NamedTuple):
    """The consents for the users of a file: a `share` of them consents to `level`, the others to nothing."""

    share: float = 1.0
    level: LevelName = "full"


class ReplayCounts(NamedTuple):
    """The records sent, all acknowledged by Kafka, and the duration of sending the interactions in seconds.

    `remarks`: how the file was parsed, which rows could not be sent, and which times were sent unparsed.
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
    """The consent of each user of the file, in order of first appearance.

    Users whose ids are not valid in a consent are left out: the job would reject the consent, and no receipt would ever
    arrive. Their rows are sent nevertheless and become dead letters.
    """
    for user in users_of(path, mapping):
        if is_user_id(user):
            yield ConsentChange(user, level_of(user, choice), at_ms, method="replay")


class Replay:
    """A replay into one product. `say` receives progress messages; `stopped` ends it early, between two rows."""

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
        """Send consents, wait for receipts, send rows; `speed` is in rows per second, None for as fast as possible."""
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
        """Send the consents in batches and wait for the receipts of each. Returns the number sent.

        Raises :class:`~deploy.demo.table.MappingError` before the first batch if the rows of the file could not be
        sent, or the job would reject all of them.
        """
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
            reading = reading_of(path, mapping)
            expect_usable(path, mapping, reading)
            self._readings[path, mapping] = reading
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
        """Send every row. Returns once Kafka has acknowledged all of them."""
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
                # kafka-python's buffer is unbounded.
                self._producer.flush()
                self._say(progress(sent, reading.table.rows, time.monotonic() - begun))
                if self._stopped():
                    break
        self._producer.flush()
        seconds = time.monotonic() - begun
        self._say(progress(sent, reading.table.rows, seconds))
        reasons = (f"{reason}: {rows:,}" for reason, rows in sorted(remarks.items()))
        return ReplayCounts(0, sent, without_user, seconds, (*reading.notes, *reasons))

    def _pace(self, due: float) -> bool:
        """Wait until `due`; false if the replay was stopped meanwhile."""
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
    """Send the consents of the file's users, wait until they are applied, send every row; see :class:`Replay`."""
    return Replay(producer, say).run(path, mapping, choice or Choice(), waiter, pseudonymiser, at_ms, speed)


def progress(sent: int, total: int | None, seconds: float) -> str:
    """
    >>> progress(20_000, 80_000, 2.0)
    'rows sent: 20,000 of 80,000 (25 %), 10,000 a second'
    """
    part = "" if total is None else f" of {total:,} ({100 * sent // max(total, 1)} %)"
    return f"rows sent: {sent:,}{part}, {sent / max(seconds, 1e-3):,.0f} a second"


def mapping_of(preset: str | None, given: dict[str, str]) -> Mapping:
    """The mapping called `preset`, or the default, changed by `given`. Raises :class:`MappingError`.

    >>> mapping_of("online-retail", {"user": "who"}).user, mapping_of(None, {}).user
    ('who', 'user_id')
    """
    if preset is not None and preset not in PRESETS:
        raise MappingError(f"there is no preset {preset}: choose one of {', '.join(sorted(PRESETS))}")
    return msgspec.structs.replace(Mapping() if preset is None else PRESETS[preset], **given)


def replay_file(
    path: Path, endpoints_path: Path, mapping: Mapping, choice: Choice, speed: float | None, say: Say
) -> ReplayCounts:
    """Replay `path` into the product whose addresses are in `endpoints_path`.

    Raises :class:`~deploy.demo.table.MappingError` before anything is sent if none of its rows is usable.
    """
    endpoints = load_endpoints(endpoints_path)
    pseudonymiser = Pseudonymiser(load_key_ring(endpoints.key_ring))
    producer = Producer(endpoints.kafka_settings(), bulk=speed is None)
    try:
        with waiting_for_consents(endpoints.kafka_settings()) as waiter:
            counts = replay(
                path,
                mapping,
                producer,
                waiter=waiter,
                pseudonymiser=pseudonymiser,
                at_ms=time.time_ns() // 1_000_000,
                choice=choice,
                speed=speed,
                say=say,
            )
    except BaseException:
        producer.abandon()
        raise
    producer.close()
    return counts
