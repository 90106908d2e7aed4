"""Collects people's data in the background: a few requests at a time, in dedicated threads."""

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
from serving.kept_answers import Requester, Ticket

FULL_RETRY_AFTER_S: Final = 30
FIRST_REQUEST_S: Final = 30.0
"""How long a repeated request waits for the first one to get its id."""
logger = logging.getLogger("freshet.gateway")


class Question(NamedTuple):
    """A request for all data about the user of `command`, whose current name is `pseudonym`."""

    pseudonym: str
    requester: Requester
    command: AccessCommand


class _Work(NamedTuple):
    tenant: Tenant
    question: Question
    ticket: "Future[Ticket]"


class Collecting:
    """The collections in progress in this process. Blocks; thread-safe. Close it before the tenants."""

    def __init__(self, settings: AccessSettings) -> None:
        self._settings = settings
        self._capacity = settings.at_once + settings.waiting_max
        self._threads = ThreadPoolExecutor(settings.at_once, "freshet-collecting")
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, str], _Work] = {}
        self._closing, self._is_silent = threading.Event(), False

    def ask(self, tenant: Tenant, question: Question) -> Ticket:
        """Start a collection and return its ticket; a repeated request gets the ticket of the one in progress.

        Raises :class:`Problem` (429) if too many wait.
        """
        key = tenant.name, question.requester.same
        with self._lock:
            known = self._under_way.get(key)
            if known is None and len(self._under_way) >= self._capacity:
                raise too_many(FULL_RETRY_AFTER_S, "too many documents are being collected: try again")
            work = known or self._under_way.setdefault(key, _Work(tenant, question, Future()))
        if known is not None:
            first: Ticket = known.ticket.result(FIRST_REQUEST_S)
            return first
        by_s = time.monotonic() + self._settings.deadline_ms / 1000
        try:
            ticket, is_new = tenant.answers.register(question.pseudonym, question.requester)
            if is_new:
                self._threads.submit(self._collect, key, work, ticket, by_s)
            else:
                self._remove(key)
        except BaseException as error:
            self._remove(key)
            work.ticket.set_exception(error)
            raise
        work.ticket.set_result(ticket)
        return ticket

    def is_under_way(self, ticket: Ticket, owners: Collection[str]) -> bool:
        """Whether this process is still collecting for `ticket`, which belongs to one of `owners`."""
        with self._lock:
            works = [work for work in self._under_way.values() if work.question.requester.owner in owners]
        known = [work.ticket for work in works if work.ticket.done() and work.ticket.exception() is None]
        return any(one.result() == ticket for one in known)

    def _collect(self, key: tuple[str, str], work: _Work, ticket: Ticket, by_s: float) -> None:
        tenant, question = work.tenant, work.question

        def on_poll() -> None:
            if self._closing.is_set():
                raise CollectionEnded("the gateway has shut down: request it again")
            if time.monotonic() > by_s:
                raise CollectionEnded("the collection took too long: request it again, or use `freshet access`")

        try:
            on_poll()
            document = self._document(tenant.held(question.command, self._settings.document_bytes_max, on_poll))
            tenant.answers.finish(ticket, question.pseudonym, document)
        except Exception as error:
            logger.warning("data held about a user could not be collected: %s", where(error))
            self._give_up(work, ticket, error)
        finally:
            self._remove(key)

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
            # The request expires by itself. While shutting down, do not wait for Kafka again.
            self._is_silent = self._closing.is_set()

    def _remove(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._under_way.pop(key, None)

    def close(self) -> None:
        """Cancel what is in progress, and record that."""
        self._closing.set()
        self._threads.shutdown()
