"""Every error that Freshet raises on purpose.

::

    FreshetError
    ├── SettingsError      a setting is missing or wrong: says which, and what it takes
    ├── SchemaError        a schema file, a codec or stored bytes are not what they should be
    ├── ModelError         a model directory cannot be trusted or does not fit
    │   └── ModelTooSlow       a run of the graph was ended because it took too long
    ├── FileError          somebody's CSV, Parquet or JSON file cannot be read: says what to change
    ├── ExportError        a folder is no export, is damaged, or cannot be written
    ├── StackError         the local stack could not be started, or is not there
    ├── StoreUnavailable   Redis did not answer in time, or refused for a reason that passes
    │   └── StoreFull          Redis has reached `maxmemory`: it can remove, but takes nothing more
    ├── StoreMisconfigured Redis refused for a reason that only an operator can fix: says which, and how
    ├── StateUnavailable   Flink could not read state
    ├── Interrupted        a wait ended because the task was cancelled
    ├── NotAcknowledged    a consent change may not have been taken: says what stands, and calling again is safe
    ├── InvalidRecord      what is to be sent is not of the documented form: says what, and was not sent
    │   ├── InvalidEvent       an interaction
    │   └── InvalidConsent     a consent change
    ├── CollectionEnded    a person's data was not collected to its end: says why
    │   └── TooMuchHeld        more is held than may be collected
    ├── JobSilent          the running job did not answer a command in time
    └── ConsentRefused     a grant was given no later than the user's last withdrawal

Bad *data* is never an exception: it is a :class:`schemas.rejects.RejectReason`.
No message carries a user id or any other value taken from an event.
"""

from pathlib import Path


class FreshetError(Exception):
    """The root: catch it to catch all of ours and nothing else."""


class SettingsError(FreshetError):
    """A setting is missing or wrong; nothing was started."""


class SchemaError(FreshetError):
    """A schema, a codec or stored bytes are not what they should be."""


class ModelError(FreshetError):
    """A model directory cannot be trusted or does not fit this release."""


class ModelTooSlow(ModelError):  # noqa: N818 - a state that passes
    """A run of the graph was ended because it took too long."""


class FileError(FreshetError):
    """A file of somebody's own cannot be read as a table; the text says what to change."""


class ExportError(FreshetError):
    """A folder is not an export that can be read, written or rewritten."""


class StackError(FreshetError):
    """The local stack or Flink did not do what was asked; below it are those of `deploy/local/errors.py`."""


class StoreUnavailable(FreshetError):  # noqa: N818 - a state that passes
    """Redis did not answer in time, or refused for a reason that passes (loading, read-only)."""


class StoreFull(StoreUnavailable):
    """Redis has reached `maxmemory`: scripts may remove, but add nothing."""


class StoreMisconfigured(FreshetError):  # noqa: N818 - what an operator must fix
    """Redis refused for a reason that does not pass by itself: rights, password, script, `maxmemory-policy`.

    The message has Redis' error code and the pattern of the keys, never a key.
    """


class StateUnavailable(FreshetError):  # noqa: N818 - a state that passes
    """Flink could not read state: the task fails, and starts again from its last checkpoint."""


class Interrupted(FreshetError):  # noqa: N818 - not a mistake
    """A wait for Redis ended because the task is being cancelled."""


class NotAcknowledged(FreshetError):  # noqa: N818 - a state that passes
    """A consent change may not have been taken; calling again is safe."""


class ConsentRefused(FreshetError):  # noqa: N818 - an answer
    """A grant was given no later than the user's last withdrawal."""


class CollectionEnded(FreshetError):  # noqa: N818 - not a mistake
    """Collecting a person's data was ended; the message may be told to who asked."""


class TooMuchHeld(CollectionEnded):
    """More is held of a person than may be collected."""

    def __init__(self) -> None:
        super().__init__("more is held than is answered here: `freshet access` has no such bound")


class JobSilent(FreshetError):  # noqa: N818 - a state that passes
    """The running job did not answer a command in time."""


class InvalidRecord(FreshetError):  # noqa: N818 - a verdict on data
    """What is to be sent is not of the documented form; `reason` is one that the job would reject it for."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidEvent(InvalidRecord):
    """An interaction that is not."""


class InvalidConsent(InvalidRecord):
    """A consent change that is not."""


def where(error: BaseException) -> str:
    """What is safe to log of `error`: ours hold no value of anybody; of others, the kind and the line that raised."""
    if isinstance(error, FreshetError):
        return str(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    at = "" if place is None else f" at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
    return f"{type(error).__name__}{at}"
