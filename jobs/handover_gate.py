"""The gate of a worker (:mod:`udfs.operators.gate`): follows the record of the take-over in Redis.

One thread for all operators of a job in a process looks several times a second. What is agreed stays agreed: if Redis
loses the record, whoever knows it writes it again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from kafka.errors import KafkaError

from adapters.redis.handovers import Handovers
from jobs.audit_ends import last_records
from jobs.marks import connect_as_tenant
from jobs.registration import last_recorded
from jobs.settings import Settings
from schemas.errors import FreshetError, Interrupted, SettingsError, StoreUnavailable
from schemas.handover import Handover
from schemas.threads import in_background
from udfs.audit_chain import ChainHead
from udfs.handover import ALWAYS, NEVER, Term, term_of
from udfs.operators.cancellation import interrupted
from udfs.operators.gate import OPEN, WriteGate

_ORDER: Final = {"announced": 0, "dropped": 1, "agreed": 1, "done": 2}
LOOK_EVERY_S: Final = 0.2
DECIDE_EVERY_S: Final = 0.02
DECIDED_WITHIN_S: Final = 3.0
"""How long a job that has reached the moment of an announced take-over waits for the decision, before it drops it."""
logger = logging.getLogger(__name__)


class HandoverGate:
    """The gate of the job of `epoch`; with `is_silent`, of one that was submitted to take over."""

    def __init__(self, settings: Settings, epoch: int, is_silent: bool) -> None:
        self._settings, self._epoch, self._is_silent = settings, epoch, is_silent
        self._turn = NEVER if is_silent else ALWAYS
        self._known: Handover | None = None
        self._parents: Mapping[int, ChainHead] | None = None
        self._members: dict[int, Callable[[], int]] = {}
        self._handovers: Handovers | None = None
        self._users = 0
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._reading = threading.Lock()

    @property
    def turn(self) -> Term:
        """See :class:`WriteGate`."""
        return self._turn

    def start(self) -> None:
        """See :class:`WriteGate`. Waits for Redis, and without a record in it for Kafka."""
        with self._changing:
            self._users += 1
            if self._users > 1:
                return
            self._ended = threading.Event()
            self._handovers = Handovers(connect_as_tenant(self._settings))
            self._look_first(self._handovers)
            in_background("freshet-handover", self._follow, self._handovers, self._ended)

    def stop(self) -> None:
        """See :class:`WriteGate`."""
        with self._changing:
            self._users -= 1
            if self._users == 0:
                self._ended.set()
                _forget(self)

    def join(self, subtask: int, newest_ms: Callable[[], int]) -> None:
        """See :class:`WriteGate`."""
        self._members[subtask] = newest_ms

    def settled(self) -> Term:
        """See :class:`WriteGate`. Drops the take-over if nobody decides within :data:`DECIDED_WITHIN_S`.

        Raises :class:`Interrupted` if Flink cancels the task.
        """
        end_s = time.monotonic() + DECIDED_WITHIN_S
        while (turn := self._turn).undecided:
            if interrupted():
                raise Interrupted("the task is being cancelled while a take-over is undecided")
            time.sleep(DECIDE_EVERY_S)
            try:
                assert self._handovers is not None
                self._note(self._handovers.read())
                if time.monotonic() > end_s and self._known is not None and self._known.state == "announced":
                    logger.error("nobody decided on the take-over that was announced: it is dropped")
                    self._handovers.change(self._known, "dropped")
            except StoreUnavailable as error:  # nothing can be decided, and nothing written
                logger.warning("%s; an announced take-over waits for it", error)
        return turn

    def parents(self) -> Mapping[int, ChainHead] | None:
        """See :class:`WriteGate`. Read from the topic `audit` when first needed, once the former job has ended."""
        if not self._is_silent or self._parents is not None:
            return self._parents or {}
        known = self._known
        if known is None or known.to != self._epoch:  # Redis has lost the record since: this job is in charge
            known = None if self._turn == NEVER else Handover(0, self._epoch, self._epoch, "done")
        if known is not None and known.state == "done" and self._reading.acquire(blocking=False):
            in_background("freshet-audit-ends", self._read_parents, known)
        return None

    def _read_parents(self, handover: Handover) -> None:
        try:
            self._parents = last_records(self._settings.kafka, handover)
        except (FreshetError, KafkaError, OSError) as error:
            logger.warning("the end of the audit trail could not be read (%s): trying again", type(error).__name__)
        finally:
            self._reading.release()

    def _look_first(self, handovers: Handovers) -> None:
        while True:
            try:
                found = handovers.read()
                if found is None and self._is_silent and self._is_recorded():
                    found = Handover(0, self._epoch, self._epoch, "done")
                self._note(found)
                return
            except (StoreUnavailable, SettingsError, KafkaError) as error:
                if interrupted():
                    raise Interrupted("the task is being cancelled while Redis is unavailable") from None
                logger.warning("whether another job has taken over is not known (%s): waiting", error)
                time.sleep(LOOK_EVERY_S)

    def _is_recorded(self) -> bool:
        """Whether this job is the last submission: then it has taken over, and Redis has lost what said so."""
        recorded = last_recorded(self._settings.kafka)
        return recorded is not None and recorded.epoch == self._epoch

    def _follow(self, handovers: Handovers, ended: threading.Event) -> None:
        try:
            while not ended.wait(LOOK_EVERY_S):
                try:
                    self._look(handovers)
                except StoreUnavailable as error:
                    logger.debug("%s", error)
                except Exception as error:  # the thread must go on: what operators know already holds
                    logger.warning("the record of the take-over could not be read: %s", type(error).__name__)
        finally:
            handovers.close()

    def _look(self, handovers: Handovers) -> None:
        found = handovers.read()
        known = self._known
        if found is None and known is not None and known.state in ("agreed", "done"):
            handovers.put_back(known)
            return
        self._note(found)
        if found is None or found.state != "announced" or self._epoch not in (found.since, found.to):
            return
        for subtask, newest_ms in list(self._members.items()):
            if newest_ms() < found.at:
                handovers.say_ready(found, self._epoch, subtask)

    def _note(self, found: Handover | None) -> None:
        known = self._known
        if (
            known is not None
            and found is not None
            and known.to == found.to
            and _ORDER[found.state] < _ORDER[known.state]
        ):
            return  # read before what is known, by the other thread
        self._turn = term_of(found, self._epoch, self._is_silent)
        self._known = found


_gates: dict[tuple[str, int], HandoverGate] = {}
_opening: Final = threading.Lock()


def handover_gate(settings: Settings, epoch: int, is_silent: bool) -> WriteGate:
    """The gate of the job of `epoch`; operators of one process get the same one. Open until it is submitted."""
    if epoch <= 1:
        return OPEN
    with _opening:
        return _gates.setdefault((settings.redis.prefix, epoch), HandoverGate(settings, epoch, is_silent))


def _forget(gate: HandoverGate) -> None:
    with _opening:
        for place in [place for place, one in _gates.items() if one is gate]:
            del _gates[place]
