"""Collecting people's data on a real Kafka: limits, one collection per request, and timely ends."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest
from kafka.errors import KafkaError

from adapters.kafka.job_session import state_of
from adapters.kafka.reading import OnPoll, TopicAsOfNow
from adapters.kafka.settings import KafkaSettings
from schemas import topics
from schemas.answers import CollectionFailed
from schemas.errors import CollectionEnded
from serving.gateway import collecting
from serving.gateway.collecting import Collecting, Question
from serving.gateway.gateway_settings import AccessSettings
from serving.gateway.problems import Problem
from serving.held_data import access_command
from serving.kept_answers import KeptAnswers, Ticket, requester
from tests.support.kafka import running_kafka, with_topics_of_its_own
from tests.support.live import until

DEADLINE_MS = 60_000
LONG_S = 600


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with running_kafka(tmp_path_factory.mktemp("kafka")) as settings:
        yield settings


class Shop(NamedTuple):
    """The parts of a tenant that collecting uses; `held` is provided by a test."""

    name: str
    answers: KeptAnswers
    held: Callable[[Any, int, OnPoll], dict[str, Any]]


class Stand:
    """Collects for one shop. `held` blocks until `let_go`, and regularly checks whether it must stop."""

    def __init__(self, kafka: KafkaSettings, **settings: int) -> None:
        self.answers = KeptAnswers(kafka, LONG_S)
        self.collecting = Collecting(AccessSettings(**{"at_once": 1, "waiting_max": 1, **settings}))
        self.shop: Any = Shop("default", self.answers, self.held)
        self.let_go = threading.Event()
        self.begun: list[str] = []

    def held(self, command: Any, bytes_max: int, on_poll: OnPoll) -> dict[str, Any]:
        self.begun.append(command.user_id)
        while not self.let_go.wait(0.01):
            on_poll()
        return {"user_id": command.user_id}

    def ask(self, user: str = "ada", purpose: str = "request 47") -> Ticket:
        who = requester("officer", "privacy", f"p1.{user}", purpose)
        return self.collecting.ask(self.shop, Question(f"p1.{user}", who, access_command(user, "privacy", purpose)))

    def ask_when_there_is_room(self, user: str) -> Any:
        """A slot is freed a moment after the answer becomes readable."""

        def ask() -> Ticket | None:
            try:
                return self.ask(user)
            except Problem:
                return None

        return until(ask, "room")

    def answer(self, ticket: Ticket, user: str = "ada") -> Any:
        standing = self.answers.look_up(ticket, [requester("officer", "privacy", f"p1.{user}").owner])
        assert standing is not None
        return standing.answer

    def ended(self, ticket: Ticket, user: str = "ada") -> Any:
        return until(lambda: self.answer(ticket, user), "an answer", 60)

    def close(self) -> None:
        self.let_go.set()
        self.collecting.close()
        self.answers.close()


@pytest.fixture
def stand(request: pytest.FixtureRequest, broker: KafkaSettings) -> Iterator[Stand]:
    stand = Stand(with_topics_of_its_own(broker), **getattr(request, "param", {}))
    yield stand
    stand.close()


def test_repeated_request_returns_same_id_and_collects_once(stand: Stand) -> None:
    tickets = {stand.ask() for _ in range(5)}
    assert len(tickets) == 1
    stand.let_go.set()
    assert b'"user_id":"ada"' in stand.ended(*tickets)
    assert stand.begun == ["ada"]


def test_requests_beyond_capacity_are_rejected_until_one_finishes(stand: Stand) -> None:
    first, second = stand.ask("ada"), stand.ask("bob")
    with pytest.raises(Problem) as refused:
        stand.ask("cyd")
    assert refused.value.status == 429 and int(dict(refused.value.headers)["Retry-After"]) >= 1
    assert stand.ask("bob") == second, "no more room is needed for what waits already"
    stand.let_go.set()
    assert stand.ended(first, "ada") and stand.ended(second, "bob")
    assert stand.begun == ["ada", "bob"], "what was refused was not collected"
    assert stand.ended(stand.ask_when_there_is_room("cyd"), "cyd")


@pytest.mark.parametrize("stand", [{"deadline_ms": 2_000}], indirect=True)
def test_collections_time_out_while_running_or_waiting(stand: Stand) -> None:
    running, waiting = stand.ask("ada"), stand.ask("bob")
    for ticket, user in ((running, "ada"), (waiting, "bob")):
        told = stand.ended(ticket, user)
        assert isinstance(told, CollectionFailed) and "too long" in told.why
    assert stand.ask_when_there_is_room("cyd")


def test_collection_past_its_deadline_is_never_started(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the deadline decides: no scan checks it here."""
    now_s = [0.0]
    monkeypatch.setattr(collecting, "time", SimpleNamespace(monotonic=lambda: now_s[0], time_ns=time.time_ns))

    def deaf(command: Any, bytes_max: int, on_poll: OnPoll) -> dict[str, Any]:
        stand.begun.append(command.user_id)
        stand.let_go.wait(LONG_S)
        return {"user_id": command.user_id}

    stand.shop = stand.shop._replace(held=deaf)
    running, waiting = stand.ask("ada"), stand.ask("bob")
    until(lambda: stand.begun, "the first one to begin", 60)
    now_s[0] = LONG_S + 1.0
    stand.let_go.set()
    assert b'"user_id":"ada"' in stand.ended(running, "ada"), "what was read in spite of it is given"
    told = stand.ended(waiting, "bob")
    assert isinstance(told, CollectionFailed) and "too long" in told.why
    assert stand.begun == ["ada"]


def test_shutdown_ends_collections_and_reports_it(stand: Stand) -> None:
    tickets = {user: stand.ask(user) for user in ("ada", "bob")}
    until(lambda: stand.begun, "the first one to begin", 60)
    closing = threading.Thread(target=stand.collecting.close)
    closing.start()
    until(lambda: not closing.is_alive(), "the end", 60)
    assert stand.begun == ["ada"], "what waits is not begun any more"
    for user, ticket in tickets.items():
        told = stand.answer(ticket, user)
        assert isinstance(told, CollectionFailed) and "shut down" in told.why
    assert [thread.name for thread in threading.enumerate() if "collecting" in thread.name] == []


@pytest.mark.parametrize("stand", [{"document_bytes_max": 10}], indirect=True)
def test_oversized_document_is_refused_with_a_remedy(stand: Stand) -> None:
    stand.let_go.set()
    told = stand.ended(stand.ask())
    assert isinstance(told, CollectionFailed) and "freshet access" in told.why


def test_errors_do_not_reveal_what_was_read(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    def broken(command: Any, bytes_max: int, on_poll: OnPoll) -> dict[str, Any]:
        raise ValueError(f"what is held of {command.user_id} is odd")

    stand.shop = stand.shop._replace(held=broken)
    with caplog.at_level(logging.DEBUG, "freshet"):
        told = stand.ended(stand.ask("ada-lovelace"), "ada-lovelace")
    assert isinstance(told, CollectionFailed) and "lovelace" not in told.why
    assert "ValueError" in caplog.text and "lovelace" not in caplog.text


def test_unavailable_kafka_is_reported_and_frees_its_place(broker: KafkaSettings) -> None:
    stand = Stand(KafkaSettings("127.0.0.1:1"))
    for _ in range(3):
        with pytest.raises(KafkaError):
            stand.ask("ada")
    assert stand.collecting._under_way == {}
    stand.close()


# readings that end


def connections(kafka: KafkaSettings) -> int:
    """The number of this process's connections to the broker."""
    port = int(kafka.bootstrap_servers.rpartition(":")[2])
    return sum(bool(one.raddr) and one.raddr.port == port for one in psutil.Process().net_connections("tcp"))


def after(turns: int) -> OnPoll:
    """Ends a scan at that iteration."""
    left = [turns]

    def on_poll() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise CollectionEnded("enough")

    return on_poll


@pytest.mark.parametrize("turns", [0, 1])
def test_cancelled_reading_leaves_no_consumer(broker: KafkaSettings, turns: int) -> None:
    kafka = with_topics_of_its_own(broker)
    answers = KeptAnswers(kafka, LONG_S)
    for number in range(3):
        answers.register("p1.ada", requester("officer", "privacy", "p1.ada", str(number)))
    answers.close()
    before = connections(kafka)
    with pytest.raises(CollectionEnded):
        list(TopicAsOfNow(kafka, topics.ANSWERS, after(0)))
    with pytest.raises(CollectionEnded):
        state_of(kafka, access_command("ada", "privacy", "x"), on_poll=after(turns))
    assert connections(kafka) <= before
