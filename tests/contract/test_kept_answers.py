"""Collected data of a person, on a real Kafka: who may read it, and from which gateway."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer

from adapters.kafka.reading import mentions_any, records
from adapters.kafka.settings import KafkaSettings
from privacy.erasure_search import BY_PSEUDONYM
from schemas import topics
from schemas.answers import CollectionFailed, CollectionStarted, encode_answer
from serving.kept_answers import PART_BYTES, KeptAnswers, Requester, Ticket, requester
from tests.support.kafka import running_kafka, with_topics_of_its_own

LONG_S = 600
NAME = "p1.ada"
OFFICER = requester("officer", "privacy", NAME, "request 47")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with running_kafka(tmp_path_factory.mktemp("kafka")) as settings:
        yield settings


@pytest.fixture
def kafka(broker: KafkaSettings) -> KafkaSettings:
    return with_topics_of_its_own(broker)


@pytest.fixture
def gateways(kafka: KafkaSettings) -> Iterator[tuple[KeptAnswers, KeptAnswers]]:
    """Two gateways that do not know each other."""
    both = KeptAnswers(kafka, LONG_S), KeptAnswers(kafka, LONG_S)
    yield both
    for one in both:
        one.close()


Gateways = tuple[KeptAnswers, KeptAnswers]


def answer(gateway: KeptAnswers, ticket: Ticket, *more_owners: str) -> bytes | CollectionFailed | None:
    """The response to the officer."""
    standing = gateway.look_up(ticket, [*more_owners, OFFICER.owner])
    assert standing is not None
    return standing.answer


@pytest.mark.parametrize("size", [1, PART_BYTES, PART_BYTES + 1, 4 * PART_BYTES])
def test_another_gateway_returns_documents_of_any_size(gateways: Gateways, size: int) -> None:
    one, other = gateways
    document = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    ticket, is_new = one.register(NAME, OFFICER)
    assert is_new and answer(other, ticket) is None
    one.finish(ticket, NAME, document)
    assert answer(other, ticket) == document


def test_repeated_request_on_any_gateway_is_one_request_until_it_ends(gateways: Gateways) -> None:
    one, other = gateways
    first, is_new = one.register(NAME, OFFICER)
    assert is_new
    assert other.register(NAME, OFFICER) == (first, False) == one.register(NAME, OFFICER)
    one.finish(first, NAME, b"{}")
    second, is_new = other.register(NAME, OFFICER)
    assert is_new and second != first
    other.give_up(second, NAME, "it took too long")
    third, is_new = one.register(NAME, OFFICER)
    assert is_new and third not in (first, second)


def test_requests_by_others_or_for_other_data_are_separate(gateways: Gateways) -> None:
    one, other = gateways
    askers = [
        OFFICER,
        requester("officer", "privacy", NAME, "request 48"),
        requester("officer", "admin", NAME, "request 47"),
        requester("other", "privacy", NAME, "request 47"),
    ]
    taken_in = [(one if number % 2 else other).register(NAME, who) for number, who in enumerate(askers)]
    assert all(is_new for _, is_new in taken_in) and len({ticket for ticket, _ in taken_in}) == len(askers)


def test_concurrent_equal_requests_collect_once(gateways: Gateways) -> None:
    ready = threading.Barrier(8)

    def ask(number: int) -> tuple[Ticket, bool]:
        ready.wait()
        return gateways[number % 2].register(NAME, OFFICER)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(8)))
    assert len({ticket for ticket, _ in told}) == 1 and sum(is_new for _, is_new in told) == 1


def test_answer_is_visible_to_its_requester_only(gateways: Gateways) -> None:
    one, other = gateways
    ticket, _ = one.register(NAME, OFFICER)
    one.finish(ticket, NAME, b"{}")
    strangers = [
        requester("other", "privacy", NAME),
        requester("officer", "admin", NAME),
        requester("officer", "privacy", "p1.bob"),
    ]
    for stranger in strangers:
        assert other.look_up(ticket, [stranger.owner]) is None
    assert answer(other, ticket, strangers[0].owner) == b"{}", "under the name before a rotation"


@pytest.mark.parametrize(
    "changed", [{"nonce": "0" * 32}, {"offset": 10**17}, {"partition": 99_999}, {"offset": 1}, {"partition": 0}]
)
def test_unknown_id_is_not_found(gateways: Gateways, changed: dict[str, Any]) -> None:
    one, other = gateways
    ticket, _ = one.register(NAME, OFFICER)
    one.finish(ticket, NAME, b"{}")
    assert ticket._replace(**changed) != ticket
    assert other.look_up(ticket._replace(**changed), [OFFICER.owner]) is None


def test_requests_of_a_crashed_gateway_end_and_can_be_repeated(kafka: KafkaSettings) -> None:
    """The deadline ends before the next record; the broker's clock dates each record."""
    gone, here = KeptAnswers(kafka, 0.001), KeptAnswers(kafka, 0.001)
    ticket, _ = gone.register(NAME, OFFICER)
    found = None
    while found is None:
        found = answer(here, ticket)
    assert isinstance(found, CollectionFailed) and "has shut down" in found.why
    again, is_new = here.register(NAME, OFFICER)
    assert is_new and again != ticket
    gone.close()
    here.close()


def test_foreign_records_are_ignored(gateways: Gateways, kafka: KafkaSettings) -> None:
    one, other = gateways
    ticket, _ = one.register(NAME, OFFICER)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    strange = [b"", b"{", b'{"kind":"of another release"}', encode_answer(CollectionStarted("0" * 32, "x", "y")), None]
    for value in strange:
        producer.send(kafka.topic(topics.ANSWERS), value, NAME.encode(), partition=ticket.partition)
    producer.close()
    one.finish(ticket, NAME, b"{}")
    assert answer(other, ticket) == b"{}"
    assert other.register(NAME, OFFICER)[1]


@pytest.mark.privacy
def test_answers_are_searchable_for_erased_users_and_hide_the_requester(
    gateways: Gateways, kafka: KafkaSettings
) -> None:
    one, _ = gateways
    who = requester("olga@shop.example", "privacy", NAME, "for Ada's lawyer")
    ticket, _ = one.register(NAME, who)
    one.finish(ticket, NAME, b'{"user_id":"ada"}')
    one.give_up(ticket, NAME, "it took too long")
    told = list(records(kafka, topics.ANSWERS))
    concerns = mentions_any([NAME])
    assert topics.ANSWERS in BY_PSEUDONYM
    assert len(told) == 3 and all(concerns(record) for record in told)
    assert not any(word in record.value for record in told for word in (b"olga", b"lawyer"))
    assert isinstance(msgspec.json.decode(told[0].value), dict)


def test_requester_digests_separate_their_parts() -> None:
    assert requester("a", "bc", "d") != requester("ab", "c", "d") and isinstance(OFFICER, Requester)
