"""Where log lines go: standard error, or what Flink has put into its Python workers; repeated lines are limited.

A worker in thread mode shares the standard error of its TaskManager (`.out` of a session cluster, the log of a
container). A worker process hands its lines to the TaskManager, which logs them; in JSON, such a line is whole, and
`deploy/logs/log4j-json.properties` passes it on as it is.
"""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from schemas.log_lines import JsonLines, LogField, LogFormat, TextLines

REPEATED_MAX: Final = 10
"""How many lines with the same text, before its values are filled in, may be written in a window."""
WINDOW_S: Final = 60.0
TEXTS_MAX: Final = 1_000
OURS: Final = ("adapters", "evaluation", "freshet", "jobs", "models", "privacy", "schemas", "serving", "udfs")
"""Loggers whose lines of level INFO are written. Of libraries, warnings are; of Kafka's client, errors."""
_QUIET: Final = {"kafka": logging.ERROR, "asyncio": logging.ERROR}


class RepeatLimit(logging.Filter):
    """Passes `limit` lines with the same text each `window_s`; the next one says how many were left out."""

    def __init__(
        self, limit: int = REPEATED_MAX, window_s: float = WINDOW_S, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._limit, self._window_s, self._clock_s = limit, window_s, clock_s
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Called by `logging` for each line."""
        key = record.name, record.levelno, f"{record.msg}{getattr(record, 'event.reason', '')}"
        now_s = self._clock_s()
        begun_s, count = self._seen.get(key, (now_s, 0))
        if now_s - begun_s >= self._window_s:
            if count > self._limit:
                vars(record)["freshet.suppressed"] = count - self._limit
            begun_s, count = now_s, 0
        if len(self._seen) >= TEXTS_MAX and key not in self._seen:
            self._seen.clear()
        self._seen[key] = begun_s, count + 1
        return count < self._limit


def log_to_stderr(
    format: LogFormat, fields: Mapping[str, LogField], *, level: int = logging.WARNING, limited: bool = False
) -> None:
    """Make every logger of this process write to standard error. Calling it again replaces what it did.

    `level` is that of libraries. If `limited`, by :class:`RepeatLimit`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(fields) if format == "json" else TextLines())
    if limited:
        handler.addFilter(RepeatLimit())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    _set_levels()


def log_from_worker(format: LogFormat, fields: Mapping[str, LogField]) -> None:
    """Set up the log of a Python worker of Flink; each operator that opens in it may call this."""
    workers = [handler for handler in logging.getLogger().handlers if _is_of_flink(handler)]
    if not workers:
        log_to_stderr(format, fields, limited=True)
        return
    for handler in workers:
        handler.setFormatter(JsonLines(fields) if format == "json" else TextLines(timed=False))
        handler.filters = [RepeatLimit(), _without_traceback]
    logging.getLogger().setLevel(logging.WARNING)
    _set_levels()


def _is_of_flink(handler: logging.Handler) -> bool:
    return type(handler).__module__.startswith("apache_beam.")


def _without_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback off, which the handler would send beside the line: it may hold data of users."""
    if record.exc_info and record.exc_info[0] is not None:
        vars(record)["error.type"], record.exc_info = record.exc_info[0].__name__, None
    return True


def _set_levels() -> None:
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
