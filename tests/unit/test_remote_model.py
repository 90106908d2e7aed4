"""A model on an inference server: each protocol, its faults, and the local model that stands in."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.http_client import KeptConnection
from adapters.scoring.opening import open_client
from jobs.remote_model import check_remote, remote_scorer, with_remote
from jobs.remote_settings import NO_SERVER, RemoteModelSettings
from models.remote_scorer import CALL_USERS_MAX, Names, RemoteScorer
from schemas.errors import HttpUnanswered, ModelError, ModelUnavailable, SettingsError
from schemas.metrics import LISTS_BY_FALLBACK, REMOTE_CALLS, REMOTE_FAILURES, REMOTE_WAITED
from tests.support.fakes import FixedModel
from tests.support.inference_server import FAULTS, ITEMS, REST, RPC, ServedModel, rest_server, rpc_server
from tests.support.models import history
from udfs.fallback_model import FallbackModel
from udfs.frozen_model import FrozenModel
from udfs.profile import ProfileBounds
from udfs.ranking import ListRules
from udfs.state import Profile

PROTOCOLS = [*REST, *RPC]
ROWS = np.concatenate([history(3, 7), history(5), history(1, 2, 3)])
OF_RPC = ("slow", "500", "shape", "users", "missing")
NOW_MS = 1_000_000


@contextmanager
def served(protocol: str) -> Iterator[tuple[ServedModel, str]]:
    model = ServedModel()
    with (rest_server if protocol in REST else rpc_server)(model) as url:
        yield model, url


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.txt"
    path.write_text("".join(f"{item}\n" for item in ITEMS))
    return path


def scorer(url: str, protocol: Any, **names: Any) -> RemoteScorer:
    return RemoteScorer(open_client(url, protocol, "m"), ITEMS, Names(**names), 5, 2_000)


@pytest.mark.parametrize("ranked", [False, True], ids=["plain", "ranked"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_remote_scores_are_those_of_the_model(protocol: str, ranked: bool) -> None:
    weights = (ROWS > 0) * np.float32(0.5)
    wanted = FixedModel(ITEMS, 5).score(ROWS, weights)
    with served(protocol) as (model, url):
        model.ranked = ranked
        remote = scorer(url, protocol, weights="weights", ids="ids" if ranked else None, items_type="int64")
        scores, rows = remote.score(ROWS, weights)
        assert np.array_equal(scores, wanted[0])
        assert np.array_equal(np.sort(rows), np.sort(wanted[1]))
        assert remote.score(ROWS, weights)[0].shape == (3, 5)
        assert model.calls == remote.calls == 2, "one call for all users"
        assert model.connections <= 1, "the connection is kept"


@pytest.mark.parametrize(
    ("protocol", "fault"),
    [*((protocol, fault) for protocol in REST for fault in FAULTS), *((one, fault) for one in RPC for fault in OF_RPC)],
)
def test_every_fault_is_one_that_the_job_survives(protocol: str, fault: str) -> None:
    with served(protocol) as (model, url):
        remote = RemoteScorer(open_client(url, protocol, "m"), ITEMS, Names(), 5, 300)
        remote.score(ROWS)
        model.fault = fault
        begun = time.monotonic()
        with pytest.raises(ModelUnavailable) as raised:
            remote.score(ROWS)
        assert time.monotonic() - begun < 5, "the deadline bounds the whole call"
        assert (remote.calls, remote.failures) == (2, 1)
        assert "1, 2, 3" not in str(raised.value), "nothing of a history is in an error"
        model.fault = ""
        model.go_on.set()
        assert remote.score(ROWS)[0].shape == (3, 5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_server_that_is_away_is_unavailable(protocol: str) -> None:
    with served(protocol) as (_, url):
        pass
    with pytest.raises(ModelUnavailable):
        scorer(url, protocol).score(ROWS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_rows_and_weights_leave_the_worker(protocol: str) -> None:
    with served(protocol) as (model, url):
        scorer(url, protocol).score(ROWS)
        [body] = model.bodies
    assert b"item-" not in body
    assert not any(word in body for word in (b"user", b"pseudonym", b"ada"))


def a_model(url: str, protocol: Any, local: Any, **names: Any) -> Any:
    remote = scorer(url, protocol, **names)
    return FallbackModel(FrozenModel(remote, "remote", rest_ms=5_000, stands_in=True), remote, local)


def a_profile(*items: str) -> Profile:
    return Profile(recents=[(item, 1, 0) for item in items], newest_ts=1)


RULES = ListRules(items=3)


@pytest.mark.parametrize("protocol", ["open-inference-rest", "tensorflow-grpc"])
def test_local_model_stands_in_until_the_server_answers_again(protocol: str) -> None:
    local = FrozenModel(FixedModel([f"local-{row}" for row in range(9)]), "local")
    profiles = [a_profile("item-3", "local-2"), a_profile("item-5", "local-1")]
    with served(protocol) as (model, url):
        both = a_model(url, protocol, local)
        both.ranked(profiles, RULES, NOW_MS)
        assert (both.name, both.name_json, b"item-1" in both.fragments[1]) == ("remote", b'"remote"', True)
        model.fault = "500"
        found = both.ranked(profiles, RULES, NOW_MS)
        assert (both.name, b"local-0" in both.fragments[1], found.kept.any(axis=1).all()) == ("local", True, True)
        calls = model.calls
        both.ranked(profiles, RULES, NOW_MS + 4_999)
        assert both.name == "local"
        assert len(model.bodies) == 2, "the server is not asked during the pause"
        model.fault = ""
        both.ranked(profiles, RULES, NOW_MS + 5_000)
        assert (both.name, model.calls) == ("remote", calls + 1)
        assert both.failed == local.failed == 0
        assert not both.failing
        counts = both.counts()
        assert counts.pop(REMOTE_WAITED) >= 0
        assert counts == {REMOTE_CALLS: 3, REMOTE_FAILURES: 1, LISTS_BY_FALLBACK: 4}


@pytest.mark.parametrize("fault", ["nan", "rows"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answer_that_cannot_be_ranked_for_a_user_counts_against_the_model(protocol: str, fault: str) -> None:
    local = FrozenModel(FixedModel(["a", "b"]), "local")
    with served(protocol) as (model, url):
        both = a_model(url, protocol, local, ids="ids")
        model.ranked, model.fault = True, fault
        found = both.ranked([a_profile("item-3"), a_profile("item-5")], RULES, NOW_MS)
        assert (both.name, both.failed) == ("remote", 1)
        assert found.kept.any(axis=1).tolist() == [False, True]
        assert model.calls == 1


def test_plain_scores_that_are_no_numbers_count_against_the_model() -> None:
    with served("open-inference-rest") as (model, url):
        model.fault = "nan"
        both = a_model(url, "open-inference-rest", FrozenModel(FixedModel(["a"]), "local"))
        found = both.ranked([a_profile("item-3"), a_profile("item-5")], RULES, NOW_MS)
        assert (both.failed, found.kept.any(axis=1).tolist()) == (1, [False, True])


@pytest.mark.parametrize("fault", ["all nan", "all null", "overflow"])
@pytest.mark.parametrize("protocol", ["open-inference-rest", "tensorflow-rest"])
def test_answer_of_no_use_to_anybody_is_none(protocol: str, fault: str) -> None:
    """Such a server was asked for ever, and its users had popular lists."""
    local = FrozenModel(FixedModel([f"local-{row}" for row in range(9)]), "local")
    profiles = [a_profile("item-3", "local-2"), a_profile("item-5", "local-1"), a_profile("unknown")]
    with served(protocol) as (model, url):
        both = a_model(url, protocol, local)
        model.fault = fault
        found = both.ranked(profiles, RULES, NOW_MS)
        assert (both.name, found.kept.any(axis=1).tolist(), both.failed) == ("local", [True, True, False], 0)
        both.ranked(profiles, RULES, NOW_MS + 4_999)
        assert (both.name, model.calls) == ("local", 1), "the server is not asked during the pause"
        model.fault = ""
        both.ranked(profiles, RULES, NOW_MS + 5_000)
        assert both.name == "remote"
        assert both.counts()[LISTS_BY_FALLBACK] == 6


def test_batch_of_unknown_histories_says_nothing_of_the_server() -> None:
    with served("open-inference-rest") as (model, url):
        model.fault = "all nan"
        both = a_model(url, "open-inference-rest", FrozenModel(FixedModel(["a"]), "local"))
        both.ranked([a_profile("unknown")], RULES, NOW_MS)
        assert both.name == "remote"


def test_server_of_no_use_to_most_users_pauses_and_is_tried_again() -> None:
    local = FrozenModel(FixedModel([f"local-{row}" for row in range(9)]), "local")
    with served("open-inference-rest") as (model, url):
        both = a_model(url, "open-inference-rest", local)
        profiles = [a_profile(f"item-{1 + n % 9}", "local-2") for n in range(30)]
        for _ in range(20):
            both.ranked(profiles, RULES, NOW_MS)
        model.fault = "most nan"
        failed = []
        while both.name == "remote":
            both.ranked(profiles, RULES, NOW_MS)
            failed.append(both.failed)
        assert len(failed) == 4, "29 of 30 fail"
        assert failed[-1] == failed[-2], "the local model has made the last batch good"
        model.fault = ""
        both.ranked(profiles, RULES, NOW_MS + 5_000)
        assert both.name == "remote"


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("ranked", [False, True], ids=["plain", "ranked"])
@pytest.mark.parametrize("fault", ["overflow", "underflow"])
@pytest.mark.parametrize("protocol", REST)
def test_score_that_float32_cannot_hold_is_none(protocol: str, fault: str, ranked: bool) -> None:
    """JSON writes 1e39 as it writes 1.0: infinite scores ranked their items first, or left them out."""
    with served(protocol) as (model, url):
        model.ranked, model.fault = ranked, fault
        scores, _ = scorer(url, protocol, ids="ids" if ranked else None).score(ROWS)
        assert np.isnan(scores).all(axis=1).all()


def test_large_element_is_asked_for_in_parts_within_one_deadline() -> None:
    left: list[float] = []

    class Client:
        def infer(self, inputs: Any, outputs: list[str], deadline_s: float) -> Any:
            left.append(deadline_s)
            return {"scores": np.ones((len(inputs["items"]), len(ITEMS)), np.float32)}

    remote = RemoteScorer(Client(), ITEMS, Names(), 5, 10_000)
    scores, rows = remote.score(np.ones((CALL_USERS_MAX + 1, 20), np.int32))
    assert scores.shape == rows.shape == (CALL_USERS_MAX + 1, 5)
    assert (remote.calls, left[1] <= left[0] <= 10) == (2, True)


def settings_for(url: str, protocol: Any, items: Path, **changes: Any) -> RemoteModelSettings:
    return RemoteModelSettings(url=url, protocol=protocol, model="m", items=str(items), **changes)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_doctor_tries_the_model(protocol: str, items: Path) -> None:
    with served(protocol) as (model, url):
        settings = settings_for(url, protocol, items, deadline_ms=5_000)
        assert "m answers in" in check_remote(settings)
        model.fault = "shape"
        with pytest.raises(ModelError, match="a trial failed: there are 10 scores for 12 items; the server says: "):
            check_remote(settings)
        model.fault = "nan"
        with pytest.raises(ModelError, match=r"what it returned for an empty history, .* not finite"):
            check_remote(settings)


def test_doctor_names_a_server_that_is_away(items: Path) -> None:
    with served("open-inference-rest") as (_, url):
        pass
    with pytest.raises(ModelError, match=rf"{url}: the server did not answer .*: see that model m is loaded there"):
        check_remote(settings_for(url, "open-inference-rest", items))


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("http://host:1", "open-inference-grpc"),
        ("grpc://host", "tensorflow-grpc"),
        ("grpc://host:1", "tensorflow-rest"),
        ("http://user:secret@host", "torchserve-rest"),
    ],
)
def test_address_that_does_not_fit_the_protocol_is_refused(url: str, protocol: Any, items: Path) -> None:
    with pytest.raises(SettingsError, match=r"model\.remote\.url: ") as refused:
        remote_scorer(settings_for(url, protocol, items), 100)
    assert "secret" not in str(refused.value)


def test_token_comes_from_the_environment(items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for("http://127.0.0.1:1", "open-inference-rest", items, token_variable="SCORING_TOKEN")
    with pytest.raises(SettingsError, match="SCORING_TOKEN"):
        with_remote(settings, FrozenModel(FixedModel(["a"]), "local"), ProfileBounds())
    monkeypatch.setenv("SCORING_TOKEN", "abc")
    assert with_remote(settings, FrozenModel(FixedModel(["a"]), "local"), ProfileBounds()).name == "m"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "m"}, "remote.model needs remote.url"),
        ({"url": "http://a:1", "items": "i"}, "remote.model must name"),
        ({"url": "http://a:1", "model": "a/b", "items": "i"}, "remote.model must name"),
        ({"url": "http://a:1", "model": "m"}, "remote.items must name the file"),
        ({"url": "http://a:1", "model": "m", "items": "i", "version": "../x"}, "remote.version must be"),
        ({"url": "http://a:1", "model": "m", "items": "i", "token_variable": "a-b"}, "remote.token_variable"),
    ],
)
def test_incomplete_settings_say_what_is_missing(changes: dict[str, str], said: str) -> None:
    assert said in str(RemoteModelSettings(**changes).complaint())  # type: ignore[arg-type]
    assert NO_SERVER.complaint() is None


def test_kept_connection_survives_a_server_that_closed_it() -> None:
    with served("open-inference-rest") as (model, url):
        client = open_client(url, "open-inference-rest", "m")
        client.infer({"items": ROWS}, ["scores"], 2)
        connection = client._connection  # type: ignore[attr-defined]
        connection._socket._inner.shutdown(2)
        assert client.infer({"items": ROWS}, ["scores"], 2)["scores"].shape == (3, 13)
        assert model.connections == 2


def test_new_connection_is_not_tried_twice() -> None:
    with served("open-inference-rest") as (model, url):
        model.fault = "reset"
        with pytest.raises(HttpUnanswered):
            KeptConnection(url).ask("POST", "/v2/models/m/infer", b"{}", 2)
        assert len(model.bodies) == 1
