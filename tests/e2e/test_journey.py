"""The journey on real parts: what shoppers, frontends and careless producers see."""

import json
import time

import pytest

from privacy.history import history
from schemas import topics
from schemas.rejects import RejectReason
from tests.support.live import Live, until

ITEMS = [f"item-{number:05d}" for number in range(1, 60)]


def ids(found):
    return [item.id for item in found.items]


def test_click_updates_the_list_for_the_next_page_view(live: Live):
    live.consent(["ada"])
    live.interact("ada", ITEMS[0])
    first = live.wait_for_version("ada", 2)
    live.interact("ada", ITEMS[1])
    second = live.wait_for_version("ada", 3)
    assert first.reason == second.reason == "personalised"
    assert ids(first) != ids(second)
    assert len(ids(second)) == live.settings.lists.items
    assert not {ITEMS[0], ITEMS[1]} & set(ids(second)), "items just seen are left out"


def test_list_expires_and_is_stored_ready_to_send(live: Live):
    live.consent(["bea"])
    live.interact("bea", ITEMS[2])
    live.wait_for_version("bea", 2)
    raw = live.redis.get(live.keys("bea")[0])
    fields = ["v", "epoch", "model", "at", "reason", "recommendation_id", "items", "viewed", "bought"]
    assert list(json.loads(raw)) == fields
    assert 0 < live.redis.pttl(live.keys("bea")[0]) <= live.settings.refresh.list_ttl_ms


@pytest.mark.promise("no-consent-nothing-kept")
def test_user_without_consent_gets_no_list_and_no_state(live: Live):
    live.interact("cleo", ITEMS[0])
    live.consent(["dan"])
    live.interact("dan", ITEMS[0])
    live.wait_for_version("dan", 2)
    assert live.states(["cleo"]) == {}
    assert live.redis.exists(*live.keys("cleo")) == 0


@pytest.mark.promise("no-consent-nothing-kept")
def test_opt_out_clears_list_and_profile_and_later_events_are_ignored(live: Live):
    live.consent(["eve"])
    live.interact("eve", ITEMS[3])
    live.wait_for_version("eve", 2)
    live.consent(["eve"], level="none")
    assert live.list_of("eve") is None
    live.interact("eve", ITEMS[4])
    live.consent(["fay"])
    state = live.states(["eve"])[live.pseudonymiser.user("eve")]
    assert state["profile"] is None
    assert live.list_of("eve") is None


def test_new_consent_starts_afresh_and_versions_continue(live: Live):
    live.consent(["gus"])
    live.interact("gus", ITEMS[5])
    live.wait_for_version("gus", 2)
    live.consent(["gus"], level="none")
    live.consent(["gus"])
    live.interact("gus", ITEMS[6])
    found = live.wait_for_version("gus", 5)
    recents = live.states(["gus"])[live.pseudonymiser.user("gus")]["profile"]["recents"]
    assert found.v == 5
    assert [item for item, _, _ in recents] == [ITEMS[6]]


def test_session_consent_gives_lists_that_end_with_the_session(live: Live):
    live.consent(["hal"], level="session")
    live.interact("hal", ITEMS[7], session_id="s1")
    found = live.wait_for_version("hal", 2)
    assert found.reason == "session"
    assert live.redis.pttl(live.keys("hal")[0]) <= live.settings.profile.session_gap_ms
    live.interact("hal", ITEMS[8], session_id="s2")
    live.wait_for_version("hal", 3)
    recents = live.states(["hal"])[live.pseudonymiser.user("hal")]["profile"]["recents"]
    assert [item for item, _, _ in recents] == [ITEMS[8]]


def test_duplicate_event_is_counted_and_changes_nothing(live: Live):
    live.consent(["ian"])
    raw = live.event("ian", ITEMS[9])
    live.send(topics.INTERACTIONS, [(b"ian", raw), (b"ian", raw)])
    live.interact("ian", ITEMS[10])
    assert live.wait_for_version("ian", 3).v == 3


def test_popular_items_appear_globally_and_in_their_segment(live: Live):
    crowd = [f"crowd-{number}" for number in range(live.settings.popularity.users_min * 6)]
    live.consent(crowd)
    for user in crowd:
        live.interact(user, ITEMS[20], "purchase", surface="home", context={"country": "GB"})
    of_one_user = "item-of-one-user"  # no other test on this stack may make it popular
    live.interact(crowd[0], of_one_user, "purchase", surface="home")
    for segment in ("all", "surface:home", "country:GB"):
        until(lambda segment=segment: live.popular(segment), f"popular:{segment}")
        until(lambda segment=segment: ITEMS[20] in ids(live.popular(segment)), f"the item in popular:{segment}")
        assert segment == "all" or ids(live.popular(segment))[0] == ITEMS[20], "on this stack others are popular too"
        assert of_one_user not in ids(live.popular(segment)), "one user's item is nobody else's business"


def test_accepted_events_are_published_pseudonymised(live: Live):
    live.consent(["customer-of-note"])
    ids_of_note = {"session_id": "session-of-note", "request_id": "request-of-note"}
    live.interact("customer-of-note", ITEMS[11], query="tea for customer-of-note, ada@example.org", **ids_of_note)
    live.wait_for_version("customer-of-note", 2)
    live.checkpoint()
    mine = live.pseudonymiser.user("customer-of-note")

    def clean():
        events = [json.loads(record.value) for record in live.records(topics.EVENTS)]
        return [event for event in events if event["pseudonym"] == mine]

    [event] = until(clean, "the clean event")
    assert event["item_id"] == ITEMS[11] and event["purposes"] == ["personalise", "measure", "train"]
    assert event["query"] == "tea for [id], [email]"
    assert "of-note" not in json.dumps(event)


NOW = time.time_ns() // 1_000_000
GOOD = {"event_id": "e", "type": "view", "ts": NOW, "user_id": "mallory", "item_id": "x"}
BAD = {
    "not JSON": (b"<event/>", RejectReason.MALFORMED),
    "truncated": (json.dumps(GOOD).encode()[:-9], RejectReason.MALFORMED),
    "deep nesting": (b'{"x":' * 60_00 + b"1" + b"}" * 60_00, RejectReason.NESTED_TOO_DEEPLY),
    "bad UTF-8": (b'{"event_id":"\xff"}', RejectReason.BAD_ENCODING),
    "NUL in an id": (json.dumps({**GOOD, "user_id": "mal\0lory"}).encode(), RejectReason.CONTROL_CHARACTER),
    "a megabyte": (b'{"x":"' + b"y" * 1_000_000 + b'"}', RejectReason.TOO_LARGE),
    "unknown type": (json.dumps({**GOOD, "type": "stare"}).encode(), RejectReason.UNKNOWN_TYPE),
    "no user": (json.dumps({k: v for k, v in GOOD.items() if k != "user_id"}).encode(), RejectReason.MISSING_USER),
    "no item": (json.dumps({k: v for k, v in GOOD.items() if k != "item_id"}).encode(), RejectReason.MISSING_ITEM),
    "1e999": (json.dumps(GOOD).encode()[:-1] + b',"value":1e999}', RejectReason.OUT_OF_RANGE),
    "10^30": (json.dumps({**GOOD, "position": 10**30}).encode(), RejectReason.OUT_OF_RANGE),
    "NaN": (json.dumps({**GOOD, "value": float("nan")}).encode(), RejectReason.MALFORMED),
    "far future": (json.dumps({**GOOD, "ts": NOW + 86_400_000}).encode(), RejectReason.TIME_IN_FUTURE),
    "ancient": (json.dumps({**GOOD, "ts": 12}).encode(), RejectReason.TIME_TOO_OLD),
    "empty": (b"", RejectReason.EMPTY_VALUE),
    "a tombstone": (None, RejectReason.EMPTY_VALUE),
}


@pytest.mark.promise("dead-letters")
def test_bad_input_becomes_dead_letters_and_the_job_continues(live: Live):
    before = len(live.rejects())
    live.send(topics.INTERACTIONS, [(b"mallory", raw) for raw, _ in BAD.values()])
    live.consent(["judy"])
    live.interact("judy", ITEMS[12], surprise={"deep": [1]}, item_name="dropped")
    live.interact("judy", "an-item-that-no-model-knows")
    live.wait_for_version("judy", 3)
    live.checkpoint()
    letters = until(lambda: len(live.rejects()) >= before + len(BAD) and live.rejects(), "dead letters")[before:]
    assert sorted(letter["reason"] for letter in letters) == sorted(reason.value for _, reason in BAD.values())
    assert all(set(letter) == {"reason", "topic", "partition", "offset", "time", "schema_v"} for letter in letters)
    assert live.stack.rest.is_running(live.job_id)


@pytest.mark.promise("account")
def test_every_sent_record_is_accounted_for(live: Live):
    sent = sum(1 for _ in live.records(topics.INTERACTIONS))
    total = live.wait_until_accounted(sent)
    assert total["accepted"] + total["duplicates"] + total["denied"] + sum(total["rejected"].values()) == sent
    assert total["unknown_fields"] >= 1


@pytest.mark.promise("redis-outage")
def test_redis_outage_loses_nothing_and_restarts_nothing(live: Live):
    live.consent(["kim"])
    live.interact("kim", ITEMS[13])
    live.wait_for_version("kim", 2)
    live.stack.kill_redis()
    live.interact("kim", ITEMS[14])
    live.stack.start_redis()
    assert live.wait_for_version("kim", 3).v == 3
    assert live.stack.rest.exceptions(live.job_id) == ""


@pytest.mark.parametrize("what", ["manifest that does not match", "no manifest"])
def test_tampered_model_is_refused_at_submission(live: Live, tmp_path, what):
    import shutil

    from deploy.local import product
    from deploy.local.errors import SubmitError

    model = tmp_path / "model"
    shutil.copytree(live.settings.model.directory, model)
    if what == "no manifest":
        (model / "manifest.json").unlink()
    else:
        with (model / "model.onnx").open("ab") as file:
            file.write(b"\0")
    settings = tmp_path / "freshet.toml"
    text = live.product.settings_path.read_text()
    settings.write_text(text.replace(live.settings.model.directory, str(model)))
    before = live.stack.rest.jobs()
    with pytest.raises(SubmitError, match=f"not submitted: .*{model}"):
        product.submit(live.stack, settings)
    assert live.stack.rest.jobs() == before


def test_training_history_holds_only_permitted_events(live: Live):
    live.consent(["lea"])
    live.consent(["moe"], denied=["train"])
    for user in ("lea", "moe"):
        live.interact(user, ITEMS[15])
        live.wait_for_version(user, 2)
    live.checkpoint()
    lea, moe = (live.pseudonymiser.user(user) for user in ("lea", "moe"))

    def users():
        seen = {json.loads(event)["pseudonym"] for event in history(live.settings)}
        return seen if lea in seen else None

    assert moe not in until(users, "the history")
