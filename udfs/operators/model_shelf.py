"""Holds the models of a worker by version. Opens them in a thread of its own, never in that of the task.

All buckets of a worker share it. What no bucket's plan names is freed.
"""

import threading
from collections.abc import Callable, Collection, Iterable
from typing import Final

from schemas.errors import ModelError, where
from schemas.threads import in_background
from udfs.ranking import ListModel
from udfs.rollout import Warmth

REFUSALS_KEPT: Final = 16
REASON_LENGTH_MAX: Final = 500
"""Reasons are kept in state and in receipts, and a runtime may say anything."""
TOGETHER_MAX: Final = 12
"""Models that a worker holds at the same time: the most that one plan can name, and some for a step between two."""


class _Opening:
    """A model that is being opened, or has been, or the reason why it could not be."""

    def __init__(self) -> None:
        self.model: ListModel | None = None
        self.refused = ""
        self.ended = threading.Event()


class ModelShelf:
    """The worker's models. `own` are those that need not be opened: `default`, and `online` if the job learns.
    `default` is the version of the first.

    `open_version` finds, checks and warms up a version; it may take long, and raises :class:`ModelError`. Each version
    is opened once, one after the other.
    """

    def __init__(self, own: dict[str, ListModel], open_version: Callable[[str], ListModel], default: str) -> None:
        self.own, self.default = own, default
        self._open_version = open_version
        self._openings: dict[str, _Opening] = {}
        self._refused: dict[str, str] = {}
        self._failed_before = 0
        self._one_at_a_time = threading.Lock()

    def __getitem__(self, version: str) -> ListModel:
        """A warm version's model."""
        model = self.own.get(version) or self._openings[version].model
        assert model is not None
        return model

    def view(self) -> Warmth:
        """What is warm, and what was refused."""
        warm = {version for version in self._openings if self._is_good(version)}
        refused = {version: opening.refused for version, opening in self._openings.items() if opening.refused}
        return Warmth(warm | self.own.keys(), self._refused | refused)

    def want(self, version: str) -> None:
        """Have `version` opened, unless it is or is about to be; one that was refused or failed is tried again."""
        opening = self._openings.get(version)
        if version in self.own or self._is_good(version) or (opening is not None and not opening.ended.is_set()):
            return
        self._free(version)
        self._refused.pop(version, None)
        if len(self._openings) >= TOGETHER_MAX:
            self._refuse(version, f"the worker holds {TOGETHER_MAX} models already: activate one, or roll back")
            return
        opening = self._openings[version] = _Opening()
        in_background("freshet-model", self._open, version, opening)

    def wait_for(self, version: str, seconds: float) -> bool:
        """Wait until `version`, which is wanted, is warm, but not longer than `seconds`; whether it is.

        Nobody waits a second time for a version that took too long.
        """
        opening = self._openings.get(version)
        if opening is not None and version not in self._refused and not opening.ended.wait(max(0.0, seconds)):
            self._refuse(version, "it was not loaded in time after a restore")
        return version in self.own or self._is_good(version)

    def keep(self, versions: Collection[str]) -> None:
        """Free all models but `versions`."""
        for version in [one for one in self._openings if one not in versions]:
            self._free(version)

    def unfit(self, versions: Iterable[str]) -> dict[str, str]:
        """Those of `versions` that cannot serve, or do it badly, and why; the default has nothing to fall back to."""
        return {
            version: self._refused.get(version) or "it failed in service"
            for version in versions
            if version not in self.own and not self._is_good(version)
        }

    def failed(self) -> int:
        """For how many users models have failed since the worker started."""
        models = [*self.own.values(), *(one.model for one in self._openings.values() if one.model is not None)]
        return self._failed_before + sum(model.failed for model in {id(one): one for one in models}.values())

    def _is_good(self, version: str) -> bool:
        opening = self._openings.get(version)
        return opening is not None and opening.model is not None and not opening.model.failing

    def _free(self, version: str) -> None:
        opening = self._openings.pop(version, None)
        if opening is None:
            return
        if opening.refused:
            self._refuse(version, opening.refused)
        if opening.model is not None:
            self._failed_before += opening.model.failed

    def _refuse(self, version: str, reason: str) -> None:
        self._refused.pop(version, None)
        self._refused[version] = reason
        while len(self._refused) > REFUSALS_KEPT:
            del self._refused[next(iter(self._refused))]

    def _open(self, version: str, opening: _Opening) -> None:
        try:
            with self._one_at_a_time:
                opening.model = self._open_version(version)
        except ModelError as error:
            opening.refused = " ".join(str(error).split())[:REASON_LENGTH_MAX]
        except BaseException as error:  # whatever a foreign model does; the task does not notice
            opening.refused = f"it cannot be opened: {where(error)}"
        finally:
            opening.ended.set()
