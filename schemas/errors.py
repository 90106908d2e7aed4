"""Every error that Freshet raises on purpose.

::

    FreshetError
    ├── SettingsError      a setting is missing or invalid: says which, and what it accepts
    │   ├── KafkaUnreachable   Kafka refused connections, was not found or did not answer: gives the address
    │   └── NoJobError         Flink runs no job of this deployment
    ├── SchemaError        a schema file, a codec or stored bytes are invalid
    ├── ModelError         a model directory cannot be trusted or does not fit
    │   └── ModelTooSlow       a run of the graph was stopped because it took too long
    ├── FileError          a user's CSV, Parquet or JSON file cannot be read: says what to change
    ├── ExportError        a folder is not an export, is damaged, or cannot be written
    ├── HttpUnanswered     an HTTP server did not respond
    ├── StackError         the local stack could not be started, or is not running
    │   ├── NotReadyError      a condition did not become true before its deadline
    │   └── RestError          Flink's REST interface did not respond, or refused: gives the reason and the status
    ├── StoreUnavailable   Redis did not respond in time, or refused for a temporary reason
    │   └── StoreFull          Redis has reached `maxmemory`: it can delete, but not add
    ├── StoreMisconfigured Redis refused for a reason that only an operator can fix: says which, and how
    ├── StateUnavailable   Flink could not read state
    ├── Superseded         another job has taken over from this one
    ├── Interrupted        a wait ended because the task was cancelled
    ├── NotAcknowledged    a consent change may not have been recorded: says what is known; calling again is safe
    ├── InvalidRecord      a record is invalid: says why, and was not sent
    │   ├── InvalidEvent       an interaction
    │   └── InvalidConsent     a consent change
    ├── CollectionEnded    collecting a person's data was stopped: says why
    │   └── TooMuchHeld        the person's data exceeds the limit
    ├── JobSilent          the running job did not respond to a command in time
    └── ConsentRefused     a grant was given no later than the user's last withdrawal

Bad *data* is never an exception: it is a :class:`schemas.rejects.RejectReason`.
No message contains a user id or any other value from an event.
"""

from pathlib import PurePath


class FreshetError(Exception):
    """The base class: catch it to catch all errors of Freshet and no others."""


class SettingsError(FreshetError):
    """A setting is missing or invalid; nothing was started."""


class KafkaUnreachable(SettingsError):  # noqa: N818 - a state that may pass
    """Kafka refused connections, was not found or did not answer; the text has its address."""


class NoJobError(SettingsError):
    """Flink runs no job of this deployment."""


class SchemaError(FreshetError):
    """A schema, a codec or stored bytes are invalid."""


class ModelError(FreshetError):
    """A model directory cannot be trusted or does not fit this release."""


class ModelTooSlow(ModelError):  # noqa: N818 - a state that passes
    """A run of the graph was stopped because it took too long."""


class ModelUnavailable(ModelTooSlow):
    """A remote model did not answer in time, refused, or answered what cannot be read."""


class FileError(FreshetError):
    """A user's file cannot be read as a table; the text says what to change."""


class ExportError(FreshetError):
    """A folder is not an export, or it cannot be read, written or rewritten."""


class StackError(FreshetError):
    """A request to the local stack or to Flink failed; subclasses are also in `deploy/local/errors.py`."""


class NotReadyError(StackError):
    """A condition did not become true before its deadline."""


class RestError(StackError):
    """Flink's REST interface could not be reached, or refused with `status`, which is 0 without a response."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class HttpUnanswered(FreshetError):  # noqa: N818 - a state that passes
    """An HTTP server did not respond; the text is the type of the error, without any content of the request."""


class StoreUnavailable(FreshetError):  # noqa: N818 - a state that passes
    """Redis did not answer in time, or refused for a temporary reason (loading, read-only)."""


class StoreFull(StoreUnavailable):
    """Redis has reached `maxmemory`: scripts can delete but not add."""


class StoreMisconfigured(FreshetError):  # noqa: N818 - what an operator must fix
    """Redis refused for a permanent reason: permissions, password, script, `maxmemory-policy`.

    The message contains Redis' error code and the pattern of the keys, never a key.
    """


class StateUnavailable(FreshetError):  # noqa: N818 - a state that passes
    """Flink could not read state: the task fails and restarts from its last checkpoint."""


class Superseded(FreshetError):  # noqa: N818 - what ends a job
    """Another job has taken over from this one."""


class Interrupted(FreshetError):  # noqa: N818 - not a mistake
    """A wait for Redis ended because the task is being cancelled."""


class NotAcknowledged(FreshetError):  # noqa: N818 - a state that passes
    """A consent change may not have been recorded; calling again is safe."""


class ConsentRefused(FreshetError):  # noqa: N818 - an answer
    """A grant was given no later than the user's last withdrawal."""


class CollectionEnded(FreshetError):  # noqa: N818 - not a mistake
    """Collecting a person's data was stopped; the message may be shown to the requester."""


class TooMuchHeld(CollectionEnded):
    """A person's data exceeds the limit of what may be collected."""

    def __init__(self) -> None:
        super().__init__("the data exceed the limit of a response: use `freshet access`, which has no such limit")


class JobSilent(FreshetError):  # noqa: N818 - a state that passes
    """The running job did not answer a command in time."""


class InvalidRecord(FreshetError):  # noqa: N818 - a verdict on data
    """A record is invalid and was not sent; `reason` is the reject reason that the job would give."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidEvent(InvalidRecord):
    """An interaction is invalid."""


class InvalidConsent(InvalidRecord):
    """A consent change is invalid."""


def where(error: BaseException) -> str:
    """The loggable part of `error`: our own errors contain no values; of others, only the type and the raising line."""
    if isinstance(error, FreshetError):
        return str(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    at = "" if place is None else f" at {PurePath(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
    return f"{type(error).__name__}{at}"
