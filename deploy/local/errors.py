"""What can go wrong with the local stack.

StackError (of schemas.errors)
├── ProcessDiedError   a part ended while it was starting
├── JarError           a jar is missing or is not the one that was pinned
└── SubmitError        `flink run` failed
"""

from __future__ import annotations

from schemas.errors import StackError

__all__ = ["JarError", "ProcessDiedError", "StackError", "SubmitError"]


class ProcessDiedError(StackError):
    """A part ended while it was starting; the text has the last lines of its log and the log's path."""


class JarError(StackError):
    """A jar is missing, or its bytes are not those that SHA256SUMS pins."""


class SubmitError(StackError):
    """`flink run` failed; the text has the client's last lines."""
