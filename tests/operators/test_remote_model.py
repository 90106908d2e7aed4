"""The operator with a model on an inference server."""

from collections.abc import Iterator

import pytest

from adapters.scoring.opening import open_client
from models.remote_scorer import Names, RemoteScorer
from tests.support.bucket import ITEMS, Bucket
from tests.support.fakes import FixedModel
from tests.support.inference_server import ServedModel, rest_server
from tests.support.vocabulary import BEGINNING, SECOND, a_consent, an_interaction
from udfs.fallback_model import FallbackModel
from udfs.frozen_model import FrozenModel

PAUSE_MS = 10 * SECOND


@pytest.fixture
def server() -> Iterator[tuple[ServedModel, Bucket]]:
    """A server, and a bucket that asks it."""
    served = ServedModel()
    with rest_server(served) as url:

        class RemoteBucket(Bucket):
            def new_ranking_model(self) -> FallbackModel:
                vocabulary = [*ITEMS, "nut", "bun", "pie", "ale"]
                remote = RemoteScorer(open_client(url, "tensorflow-rest", "m"), vocabulary, Names(), 12, 2_000)
                local = FrozenModel(FixedModel(ITEMS), "local")
                return FallbackModel(FrozenModel(remote, "remote@3", rest_ms=PAUSE_MS, stands_in=True), remote, local)

        yield served, RemoteBucket()


def model_of(bucket: Bucket) -> str:
    found = bucket.list()
    assert found is not None
    assert found.items
    return found.model


def test_list_names_the_model_that_made_it(server: tuple[ServedModel, Bucket]) -> None:
    served, bucket = server
    bucket.take(a_consent(), a_consent("bob"))
    bucket.take(an_interaction(item="tea"), an_interaction("bob", item="oil"))
    assert (model_of(bucket), served.calls) == ("remote@3", 1)
    served.fault = "500"
    bucket.take(an_interaction(at=BEGINNING + SECOND, item="pot"))
    assert model_of(bucket) == "local"
    served.fault = ""
    bucket.take(an_interaction(at=BEGINNING + 2 * SECOND, item="jam"))
    assert (model_of(bucket), len(served.bodies)) == ("local", 2), "the server is not asked during the pause"
    bucket.take(an_interaction(at=BEGINNING + SECOND + PAUSE_MS, item="rye"))
    assert model_of(bucket) == "remote@3"
    counts = bucket.keyed.counts
    assert (counts["remote_calls_total"], counts["remote_failures_total"], counts["lists_by_fallback_total"]) == (
        3,
        1,
        2,
    )
    assert counts["lists_without_model_total"] == 0


def test_consent_is_withdrawn_while_the_server_hangs(server: tuple[ServedModel, Bucket]) -> None:
    served, bucket = server
    bucket.take(a_consent(), an_interaction(item="tea"))
    served.fault = "half"
    bucket.take(an_interaction(at=BEGINNING + SECOND, item="pot"), a_consent(level="none", at=BEGINNING + 2 * SECOND))
    assert not bucket.store.has_list_key("ada")
