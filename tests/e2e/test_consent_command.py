"""Consents and erasures recorded by command, on real parts."""

import json

import pytest

from freshet.cli.main import run
from serving.reader import Reader
from tests.support.live import Live, until

pytestmark = pytest.mark.privacy


def command(live: Live, *words: str) -> int:
    return run([*words, "--settings", str(live.product.settings_path)])


def reason(reader: Reader, user: str) -> str:
    return reader.recommend(user).reason


def test_consent_by_letter_is_granted_withdrawn_and_erased(live: Live, reader: Reader, capsys):
    assert command(live, "consent", "record", "--user", "olga", "--level", "full", "--denied", "train") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"append_ts", "partition", "offset"}
    live.wait_for_consent("olga")
    live.interact("olga", "item-00001")
    live.wait_for_version("olga", 2)
    until(lambda: reason(reader, "olga") == "personalised", "the list")
    assert command(live, "consent", "withdraw", "--user", "olga", "--method", "letter") == 0
    assert reason(reader, "olga") == "popular", "when the command has returned"
    assert command(live, "erase", "user", "--user", "olga") == 0
    until(lambda: live.states(["olga"]) == {}, "the state to go")
