"""What can go wrong with the local stack.

StackError (of schemas.errors)
├── ProcessDiedError   a part ended while it was starting
├── NotReadyError      a part did not answer before its deadline
├── JarError           a jar is missing or is not the one that was pinned
├── SubmitError        `flink run` failed
└── RestError          Flink's REST interface answered with an error
"""

from __future__ import annotations

from schemas.errors import StackError

__all__ = ["JarError", "NotReadyError", "ProcessDiedError", "RestError", "StackError", "SubmitError"]


class ProcessDiedError(StackError):
    """A part ended while it was starting; the text has the last lines of its log and the log's path."""


class NotReadyError(StackError):
    """A condition did not become true before its deadline."""


class JarError(StackError):
    """A jar is missing, or its bytes are not those that SHA256SUMS pins."""


class SubmitError(StackError):
    """`flink run` failed; the text has the client's last lines."""


class RestError(StackError):
    """Flink's REST interface could not be reached or answered with an error status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
