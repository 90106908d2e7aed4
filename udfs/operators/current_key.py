"""Makes another key the current one: an element holds several buckets, and Flink sets the key of the first only."""

from typing import Any, Final

from pyflink.common import Row

_NOT_NULL: Final = b"\x00"
"""Begins a row of one field in the format of Flink's `RowSerializer`: an insertion whose field is not null."""


class CurrentKey:
    """Sets the current integer key of a keyed operator, for its state and its timers.

    PyFlink has no public way to do that: in thread mode this asks the Java backend that the embedded one wraps, in
    process mode PyFlink's own. A key must belong to the subtask; :func:`jobs.java_operators.gather_elements` sees to
    that, and Flink's heap backend refuses others.
    """

    def __init__(self, runtime_context: Any) -> None:
        self._backend = runtime_context._keyed_state_backend
        self._is_embedded = not hasattr(self._backend, "set_current_key")
        self._java_keys: dict[int, Any] = {}

    def set(self, key: int, ctx: Any) -> None:
        """Make `key` the current key of state, timers and `ctx`."""
        if self._is_embedded:
            self._backend._keyed_state_backend.setCurrentKey(self._java_key(key))
        else:
            ctx.set_current_key(key)
            self._backend.set_current_key(Row(key))

    def _java_key(self, key: int) -> Any:
        """The key as Java has it. An integer that crosses as it is would become a long, and so another key."""
        found = self._java_keys.get(key)
        if found is None:
            from pemja import findClass  # only where Python runs in the JVM

            raw = _NOT_NULL + key.to_bytes(4, "big", signed=True)
            source = findClass("org.apache.flink.core.memory.DataInputDeserializer")(raw)
            found = self._backend._keyed_state_backend.getKeySerializer().deserialize(source)
            self._java_keys[key] = found
        return found
