"""Log lines of all processes: as JSON with the field names of the Elastic Common Schema (ECS), or as text.

A line is one JSON object. Code adds fields with `extra`, by their names in the line::

    logger.warning("a record was rejected (%s)", reason, extra={"kafka.topic": …, "kafka.offset": …})

No message and no field holds raw ids, texts of users, keys or tokens: request ids are logged as keyed hashes
(:meth:`schemas.pseudonyms.Pseudonymiser.request`), and of an exception a line has the type only.
"""

import contextvars
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

ECS_VERSION: Final = "1.2.0"
"""As in the layout that Log4j ships (`EcsLayout.json`), with which Flink's own lines are written."""
LogFormat = Literal["text", "json"]
LogField = str | int | float | bool | None
LEVELS: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}
"""Python's names of levels that Log4j has others for."""
HTTP_REQUEST: Final = "http.request.id"
"""The field with the keyed hash of the `X-Request-Id` of a request."""
SHOWN_REQUEST: Final = "freshet.request_id"
"""The field with the keyed hash of the `request_id` of an event: of the list that it belongs to."""
_ORDINARY: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",  # uvicorn's, with escape sequences
}
_context: Final[contextvars.ContextVar[Mapping[str, LogField]]] = contextvars.ContextVar("freshet-log")


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the job's Python operators write their log."""

    format: LogFormat = "text"
    """`text` or `json`. Flink's own lines are JSON with `deploy/logs/log4j-json.properties`."""


def add_to_log_lines(fields: Mapping[str, LogField]) -> None:
    """Add `fields` to all later lines of this context: of an asyncio task, or of an operator's thread."""
    _context.set({**_context.get({}), **fields})


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line has besides time, level, logger and message: the fields of its context, and its own."""
    own = {name: value for name, value in vars(record).items() if name not in _ORDINARY and value is not None}
    return {**{name: value for name, value in _context.get({}).items() if value is not None}, **own}


class JsonLines(logging.Formatter):
    """One object per line. `fields` are in every line, `service.name` among them."""

    def __init__(self, fields: Mapping[str, LogField]) -> None:
        super().__init__()
        self._fields = {name: value for name, value in fields.items() if value is not None}

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        line: dict[str, Any] = {
            "@timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "log.level": LEVELS.get(record.levelname, record.levelname),
            "message": record.getMessage(),
            "ecs.version": ECS_VERSION,
            **self._fields,
            "log.logger": record.name,
            "process.thread.name": record.threadName,
            **fields_of(record),
            **_type_of(record),
        }
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """For people: as Flink writes its lines, with the fields behind the message.

    Without `timed`, no time and level: whoever takes the line adds them.
    """

    def __init__(self, timed: bool = True) -> None:
        super().__init__()
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        fields = {**fields_of(record), **_type_of(record)}
        text = " ".join([record.getMessage(), *(f"{name}={value}" for name, value in fields.items())])
        line = f"{record.name} - {text}"
        if not self._timed:
            return line
        level = LEVELS.get(record.levelname, record.levelname)
        return f"{self.formatTime(record)} {level:<5} {line}"


def _type_of(record: logging.LogRecord) -> dict[str, str]:
    """The type of the exception: its text, and that of its traceback, may contain data of users."""
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    return {"error.type": record.exc_info[0].__name__}
