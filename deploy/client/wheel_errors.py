"""Errors raised while building the client library."""

from schemas.errors import FreshetError


class WheelError(FreshetError):
    """The client library cannot be built; the text says what to change."""
