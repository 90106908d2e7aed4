"""What a learner has published, kept to make a list again from the model that it names.

The job's clock decides when lessons are merged, so a model at a sequence cannot be computed from events alone. What was
published can be kept: Redis has the updates of the last minutes, and the whole model as of the last minute.
"""

from typing import Final

from models.online.updates import decode_update
from schemas.errors import ModelError
from udfs.online_model import ONLINE, OnlineModel, Published

WHOLE: Final = 0
"""What an update follows that has the whole model."""


class ModelArchive:
    """Updates by sequence. `record` reads what is new, so call it more often than Redis forgets updates."""

    def __init__(self) -> None:
        self._raw: dict[int, tuple[int, bytes]] = {}
        self._last = WHOLE

    def __len__(self) -> int:
        return len(self._raw)

    def record(self, published: Published) -> None:
        """Keep what was published since the last call."""
        self._follow(published)
        if published.update_after(self._last).head not in (self._last, WHOLE):
            whole = published.whole_model()
            if whole is not None:
                self._last = self.add(whole)
                self._follow(published)

    def _follow(self, published: Published) -> None:
        while (raw := published.update_after(self._last).update) is not None:
            self._last = self.add(raw)

    def add(self, raw: bytes) -> int:
        """Keep an update, or a whole model, and return its sequence."""
        update = decode_update(raw)
        if update.sequence not in self._raw or update.after == WHOLE:
            self._raw[update.sequence] = update.after, raw
        return update.sequence

    def model(self, name: str) -> OnlineModel:
        """The model that lists call `name`; raises :class:`ModelError` if a part of it was not recorded."""
        sequence, chain = int(name.removeprefix(f"{ONLINE}@") or 0), list[bytes]()
        while sequence != WHOLE:
            if sequence not in self._raw:
                raise ModelError(f"model {name} was not recorded: what leads to sequence {sequence} is missing")
            sequence, raw = self._raw[sequence]
            chain.append(raw)
        model = OnlineModel()
        model.apply([decode_update(raw) for raw in reversed(chain)])
        return model
