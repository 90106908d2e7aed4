"""A model on a server, and the local model that makes the lists while the server does not answer."""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from schemas.errors import ModelUnavailable
from schemas.metrics import LISTS_BY_FALLBACK, REMOTE_CALLS, REMOTE_FAILURES, REMOTE_WAITED, Metric
from udfs.frozen_model import FrozenModel
from udfs.ranking import ListModel, ListRules, Ranked
from udfs.state import Profile

REMOTE_COUNTERS: Final = (REMOTE_CALLS, REMOTE_FAILURES, REMOTE_WAITED, LISTS_BY_FALLBACK)
"""The metrics, in the order of :meth:`FallbackModel.counts`."""


class Calls(Protocol):
    """What the client of the server counts."""

    calls: int
    failures: int
    waited_ms: int


class FallbackModel:
    """A :class:`udfs.ranking.ListModel`: `remote`, and `local` for batches that it does not answer.

    `remote` is one for which another `stands_in`. `name` and `fragments` are those of the model that ranked last. A
    user for whom the server's answer cannot be ranked has a popular list, as with any model, unless the answer is of no
    use to any user, or answers were of none to most users lately: `local` ranks the batch then, too.
    """

    failing = False
    """A server that does not answer has a fallback, and is asked again."""

    def __init__(self, remote: FrozenModel, calls: Calls, local: ListModel) -> None:
        self.local = local
        self.report_failure = remote.report_failure
        self._remote = remote
        self._calls = calls
        self._last: ListModel = remote
        self._stood_in = self._made_good = 0

    @property
    def name(self) -> str:
        """The model that ranked last."""
        return self._last.name

    @property
    def name_json(self) -> bytes:
        """Its name as JSON."""
        return self._last.name_json

    @property
    def fragments(self) -> npt.NDArray[np.object_]:
        """Its items."""
        return self._last.fragments

    def knows(self, item: str) -> bool:
        """Whether the model that ranked last knows `item`."""
        return self._last.knows(item)

    @property
    def failed(self) -> int:
        """For how many users the server's answers could not be ranked; the local model counts its own failures."""
        return self._remote.failed - self._made_good

    def counts(self) -> dict[Metric, int]:
        """By metric, since the worker started; the time in whole seconds."""
        counts = (self._calls.calls, self._calls.failures, self._calls.waited_ms // 1000, self._stood_in)
        return dict(zip(REMOTE_COUNTERS, counts, strict=True))

    def ranked(self, profiles: Sequence[Profile], rules: ListRules, now_ms: int) -> Ranked:
        """See :class:`udfs.ranking.ListModel`. One call for all users."""
        self._last, remote, failed = self._remote, self._remote, self._remote.failed
        found = remote.ranked(profiles, rules, now_ms)
        if remote.fails_for_most() and not remote.guarded.rests(now_ms):
            remote.guarded.rest(now_ms, ModelUnavailable("answers are of no use to most users"))
        if not remote.guarded.rests(now_ms):
            return found
        remote.forget_failures()
        self._stood_in += len(profiles)
        self._made_good += remote.failed - failed
        self._last = self.local
        return self.local.ranked(profiles, rules, now_ms)
