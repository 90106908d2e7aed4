"""A subtask with several buckets, whose elements are gathered as `jobs/java/freshet/GatheredElements.java` does it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.support.fakes import Keyed


def gathered(elements: Sequence[tuple[int, bytes]]) -> bytes:
    """`elements`, each with its key, in one packed array."""
    packed = [b"\x92\xd2" + key.to_bytes(4, "big", signed=True) + raw for key, raw in elements]
    return b"\xdd" + len(packed).to_bytes(4, "big") + b"".join(packed)


class ManyKeys:
    """The state of several keys: runtime context, and context of the key that is current."""

    def __init__(self, keys: Mapping[int, Keyed]) -> None:
        self.keys = keys
        self.current = next(iter(keys.values()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current, name)

    @property
    def _keyed_state_backend(self) -> "ManyKeys":
        """What sets the current key."""
        return self

    def set_current_key(self, key: Any) -> None:
        """Set it, given as an integer or as a row."""
        self.current = self.keys[key if isinstance(key, int) else key[0]]

    def get_map_state(self, descriptor: Any) -> "StateOfCurrent":
        """The map state of this name, of whichever key is current."""
        return StateOfCurrent(self, "get_map_state", descriptor)

    def get_state(self, descriptor: Any) -> "StateOfCurrent":
        """The value state of this name, of whichever key is current."""
        return StateOfCurrent(self, "get_state", descriptor)

    def get_list_state(self, descriptor: Any) -> "StateOfCurrent":
        """The list state of this name, of whichever key is current."""
        return StateOfCurrent(self, "get_list_state", descriptor)


class StateOfCurrent:
    """A state handle, as an operator opens it once for all keys."""

    def __init__(self, keys: ManyKeys, method: str, descriptor: Any) -> None:
        self._keys, self._method, self._descriptor = keys, method, descriptor

    def _state(self) -> Any:
        return getattr(self._keys.current, self._method)(self._descriptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state(), name)

    def __getitem__(self, key: Any) -> Any:
        return self._state()[key]

    def __contains__(self, key: Any) -> bool:
        return key in self._state()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._state())


class Subtask:
    """One operator over several keys. It counts in the first one's metrics."""

    def __init__(self, operator: Any, keys: Mapping[int, Keyed]) -> None:
        self.operator, self.keys = operator, ManyKeys(keys)
        operator.open(self.keys)

    def take(self, elements: Sequence[tuple[int, bytes]]) -> list[Any]:
        """Process `elements` as one, and return the output."""
        first = elements[0][0]
        self.keys.set_current_key(first)
        return list(self.operator.process_element((first, gathered(elements)), self.keys))

    def advance_to(self, now_ms: int) -> list[Any]:
        """Advance the clock of all keys, fire due timers in their order, and return the output."""
        emitted: list[Any] = []
        while due := [(min(one.timers), key) for key, one in self.keys.keys.items() if one.timers]:
            timer, key = min(due)
            if timer > now_ms:
                break
            self.keys.set_current_key(key)
            self.keys.current.timers.remove(timer)
            for one in self.keys.keys.values():
                one.now_ms = max(one.now_ms, timer)
            emitted += self.operator.on_timer(timer, self.keys)
        for one in self.keys.keys.values():
            one.now_ms = max(one.now_ms, now_ms)
        return emitted
