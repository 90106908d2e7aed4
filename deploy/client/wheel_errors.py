"""Errors of building the client library."""

from schemas.errors import FreshetError


class WheelError(FreshetError):
    """The client library cannot be built as it stands; says what to change."""
