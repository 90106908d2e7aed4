"""Errors of the local stack.

StackError (of schemas.errors)
├── ProcessDiedError   a part ended during startup
├── JarError           a jar is missing or differs from the pinned one
└── SubmitError        `flink run` failed
"""

from __future__ import annotations

from schemas.errors import StackError

__all__ = ["JarError", "ProcessDiedError", "StackError", "SubmitError"]


class ProcessDiedError(StackError):
    """A part ended during startup; the text has the last lines of its log and the log's path."""


class JarError(StackError):
    """A jar is missing, or its bytes differ from those pinned by SHA256SUMS."""


class SubmitError(StackError):
    """`flink run` failed; the text has the client's last lines."""
