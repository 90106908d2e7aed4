"""The right of access: one document with all that is held, and a record of who asked."""

import io
import json

import pytest

from jobs import access
from schemas import topics
from tests.support.live import Live, until


def held(live: Live, capsys, user: str) -> dict:
    capsys.readouterr()
    settings = str(live.product.settings_path)
    assert access.main(["--settings", settings, "--user", user, "--role", "officer", "--purpose", "request 1"]) == 0
    return json.loads(capsys.readouterr().out)


def test_everything_held_of_a_person_is_in_one_document_and_nothing_of_anybody_else(live: Live, capsys):
    live.consent(["xena", "yuri"])
    for user in ("xena", "yuri"):
        live.interact(user, "item-00007", session_id=f"session-of-{user}")
        live.wait_for_version(user, 2)
    live.checkpoint()
    mine = live.pseudonymiser.user("xena")
    for name in (topics.EVENTS, topics.AUDIT):
        until(
            lambda name=name: any(mine.encode() in record.value for record in live.records(name)), f"a record in {name}"
        )
    document = held(live, capsys, "xena")
    assert document["pseudonyms"] == [mine]
    assert [item for item, _, _ in document["profile_and_consent"]["profile"]["recents"]] == ["item-00007"]
    assert [entry["record"]["level"] for entry in document["consent_history"]] == ["full"]
    assert [entry["record"]["item_id"] for entry in document["raw_interactions"]] == ["item-00007"]
    assert [entry["record"]["item_id"] for entry in document["clean_events"]] == ["item-00007"]
    assert [entry["record"]["kind"] for entry in document["audit_trail"]] == ["consent"]
    assert document["redis"][live.keys("xena")[0]]["reason"] == "personalised"
    text = json.dumps(document)
    assert "yuri" not in text and live.pseudonymiser.user("yuri") not in text


def test_the_reading_itself_is_in_the_audit_trail(live: Live, capsys):
    live.consent(["zoe"])
    held(live, capsys, "zoe")
    live.checkpoint()

    def reading():
        mine = live.pseudonymiser.user("zoe").encode()
        return [json.loads(r.value) for r in live.records(topics.AUDIT) if b'"access"' in r.value and mine in r.value]

    [entry] = until(reading, "the reading in the trail")
    assert (entry["role"], entry["purpose"], entry["what"]) == ("officer", "request 1", "profile")


def test_of_a_stranger_nothing_is_held(live: Live, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a-stranger\n"))
    document = held(live, capsys, "-")
    assert document["user_id"] == "a-stranger"
    assert [document[part] for part in ("profile_and_consent", "redis", "consent_history", "clean_events")] == [
        None,
        {},
        [],
        [],
    ]
