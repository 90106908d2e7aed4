"""Collects people's data in the background: a few requests at a time, in threads of their own."""

import logging
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import msgspec
from kafka.errors import KafkaError

from schemas.control import AccessCommand
from schemas.errors import CollectionEnded, FreshetError, TooMuchHeld, where
from serving.gateway.gateway_settings import AccessSettings
from serving.gateway.problems import too_many
from serving.gateway.tenants import Tenant
from serving.kept_answers import Asker, Ticket

FULL_RETRY_AFTER_S: Final = 30
FIRST_ONE_S: Final = 30.0
"""How long a second request for the same waits for the first one to be told its id."""
logger = logging.getLogger("freshet.gateway")


class Question(NamedTuple):
    """What somebody asks: all that is held of the user of `command`, who is called `pseudonym`."""

    pseudonym: str
    asker: Asker
    command: AccessCommand


class _Work(NamedTuple):
    tenant: Tenant
    question: Question
    ticket: "Future[Ticket]"


class Collecting:
    """What is being collected in this process. Blocks; several threads may share one. Close it before the tenants."""

    def __init__(self, settings: AccessSettings) -> None:
        self._settings = settings
        self._room = settings.at_once + settings.waiting_max
        self._threads = ThreadPoolExecutor(settings.at_once, "freshet-collecting")
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, str], _Work] = {}
        self._closing, self._is_silent = threading.Event(), False

    def ask(self, tenant: Tenant, question: Question) -> Ticket:
        """Have it collected, and say under which ticket; that of the first where the same was asked and is under way.

        Raises :class:`Problem` (429) where too many wait.
        """
        key = tenant.name, question.asker.same
        with self._lock:
            known = self._under_way.get(key)
            if known is None and len(self._under_way) >= self._room:
                raise too_many(FULL_RETRY_AFTER_S, "too many documents are being collected: try again")
            work = known or self._under_way.setdefault(key, _Work(tenant, question, Future()))
        if known is not None:
            first: Ticket = known.ticket.result(FIRST_ONE_S)
            return first
        by_s = time.monotonic() + self._settings.deadline_ms / 1000
        try:
            ticket, is_new = tenant.answers.take_in(question.pseudonym, question.asker)
            if is_new:
                self._threads.submit(self._collect, key, work, ticket, by_s)
            else:
                self._leave(key)
        except BaseException as error:
            self._leave(key)
            work.ticket.set_exception(error)
            raise
        work.ticket.set_result(ticket)
        return ticket

    def is_under_way(self, ticket: Ticket, owners: Collection[str]) -> bool:
        """Whether this very process has yet to answer `ticket`, which is that of one of `owners`."""
        with self._lock:
            works = [work for work in self._under_way.values() if work.question.asker.owner in owners]
        known = [work.ticket for work in works if work.ticket.done() and work.ticket.exception() is None]
        return any(one.result() == ticket for one in known)

    def _collect(self, key: tuple[str, str], work: _Work, ticket: Ticket, by_s: float) -> None:
        tenant, question = work.tenant, work.question

        def on_turn() -> None:
            if self._closing.is_set():
                raise CollectionEnded("the gateway has shut down: request it again")
            if time.monotonic() > by_s:
                raise CollectionEnded("the collection took too long: request it again, or use `freshet access`")

        try:
            on_turn()
            document = self._document(tenant.held(question.command, self._settings.document_bytes_max, on_turn))
            tenant.answers.finish(ticket, question.pseudonym, document)
        except Exception as error:
            logger.warning("data held about a user could not be collected: %s", where(error))
            self._give_up(work, ticket, error)
        finally:
            self._leave(key)

    def _document(self, held: dict[str, Any]) -> bytes:
        raw = msgspec.json.encode(held | {"collected_at": time.time_ns() // 1_000_000})
        if len(raw) > self._settings.document_bytes_max:
            raise TooMuchHeld
        return raw

    def _give_up(self, work: _Work, ticket: Ticket, error: Exception) -> None:
        if self._is_silent:
            return
        why = (
            str(error)
            if isinstance(error, CollectionEnded)
            else "a backend of the gateway was unavailable: request it again"
        )
        try:
            work.tenant.answers.give_up(ticket, work.question.pseudonym, why)
        except (KafkaError, FreshetError):
            # Whoever asks is told so when its time is over; the end of the gateway does not wait for Kafka once more.
            self._is_silent = self._closing.is_set()

    def _leave(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._under_way.pop(key, None)

    def close(self) -> None:
        """End what is under way, and say so where it is asked for."""
        self._closing.set()
        self._threads.shutdown()
