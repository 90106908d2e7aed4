"""What the demo shows: sums from receipts, marks on a list, and lines that fit any terminal."""

import io
import re
from itertools import pairwise
from typing import Any

import pytest

from deploy.demo.dashboard import View, render
from deploy.demo.followed import Followed, MarkedItem, NamedShelf, ShopperAction
from deploy.demo.screen import PlainScreen, TerminalScreen, screen_for
from deploy.demo.text import BOLD, fit, paint, plain, width_of
from deploy.demo.watch import Feedback, JobTotals, ListLatency, MetricRecord, OwnList, RateMeter, Watch
from schemas.events import Interaction
from schemas.lists import ListedItem
from schemas.receipts import AccountTotals, ConsentReceipt, ElementReceipt, ListReceipt
from schemas.rejects import DeadLetter, RejectReason
from serving.answers import Recommendation

NOW = 1_750_000_000_000
ADA = "p1.ada"
NAMES = {"tea-01": "Green Tea Sencha", "cup-01": "Blue Cup", "pot-01": "Iron Pot"}


def an_element(bucket: int = 0, accepted: int = 1, epoch: int = 1, **more: Any) -> ElementReceipt:
    account = AccountTotals(
        sent=accepted + more.get("denied", 0) + sum(more.get("rejected", {}).values()),
        accepted=accepted,
        duplicates=0,
        denied=more.get("denied", 0),
        rejected=more.get("rejected", {}),
        consents_applied=0,
        consents_replayed=0,
        others_rejected=0,
        unknown_fields=0,
    )
    return ElementReceipt(bucket, epoch, more.get("at", NOW), "model", more.get("lists", []), account)


def a_list(version: int, ms: int, pseudonym: str = ADA, outcome: str = "written") -> ListReceipt:
    return ListReceipt(pseudonym, version, "personalised", outcome, NOW - ms)


def a_consent(pseudonym: str, level: str) -> ConsentReceipt:
    return ConsentReceipt(
        pseudonym, level, version=1, consent_at=NOW, partition=0, offset=0, outcome="in_force", at=NOW
    )


def a_recommendation(*items: str, version: int = 1, reason: Any = "personalised") -> Recommendation:
    return Recommendation(tuple(ListedItem(item, 1.0) for item in items), reason, version, 10)


def a_metric(model: str, impressions: int, clicks: int, **more: Any) -> MetricRecord:
    return MetricRecord(
        **{"kind": "feedback", "at": NOW, "window": "5m", "surface": "home", **more},
        model=model,
        impressions=impressions,
        clicks=clicks,
    )


def a_view(**changes: Any) -> View:
    view = View(
        now_ms=NOW,
        elapsed_s=83,
        job_state="running",
        notice="",
        events_per_s=201.4,
        lists_per_s=143.0,
        trend=[180, 200, 220, 190],
        latency=ListLatency(42, 97),
        sent=1_234,
        totals=JobTotals(1_230, 1_100, 20, 80, {"missing_user": 20, "malformed": 10}),
        levels={"full": 250, "session": 30, "none": 20},
        last_reject=DeadLetter(RejectReason.MALFORMED, "freshet.interactions", 2, 1_041, NOW, 0),
        name="ada",
        level="full",
        actions=[ShopperAction(NOW - 3_000, "clicked", "Green Tea Sencha", True)],
        listed=[MarkedItem("Blue Cup", "new"), MarkedItem("Iron Pot", "up"), MarkedItem("Old Hat", "")],
        list_version=17,
        list_reason="personalised",
        list_age_ms=300,
        stories=["ada clicked Green Tea Sencha → list v17, 42 ms later"],
        shelves=[NamedShelf("similar to Blue Cup", ["Red Cup"]), NamedShelf("trending", ["Iron Pot", "Old Hat"])],
        feedback={"online": Feedback(1_204, 131), "popularity": Feedback(80, 2)},
    )
    return view._replace(**changes)


# -- the known state


def test_bucket_accounts_add_up_and_older_receipts_are_ignored() -> None:
    watch = Watch(ADA)
    for receipt in (
        an_element(0, accepted=5, denied=2),
        an_element(1, accepted=1, rejected={"malformed": 3}),
        an_element(0, accepted=3),
    ):
        watch.note(receipt, NOW)
    totals = watch.totals()
    assert (totals.sent, totals.accepted, totals.denied, totals.rejects) == (11, 6, 2, 3)
    assert totals.adds_up


def test_latency_covers_recent_lists_only() -> None:
    watch = Watch(ADA)
    watch.note(an_element(lists=[a_list(1, 5_000)]), NOW - 11_000)
    watch.note(an_element(lists=[a_list(version, version) for version in range(1, 101)]), NOW)
    watch.note(an_element(lists=[a_list(1, 9_000, outcome="stale")]), NOW)
    assert watch.latency(NOW) == ListLatency(50, 99)
    assert watch.own == OwnList(100, 100, NOW - 100)


def test_no_data_gives_no_latency() -> None:
    assert Watch(ADA).latency(NOW) == ListLatency(None, None)


def test_levels_follow_the_last_consent() -> None:
    watch = Watch(ADA)
    for pseudonym, level in (("a", "full"), ("b", "full"), ("a", "none"), (ADA, "session")):
        watch.note(a_consent(pseudonym, level), NOW)
    assert {level: count for level, count in watch.levels.items() if count} == {"full": 1, "none": 1, "session": 1}
    assert watch.own_level == "session"


def test_meter_counts_whole_seconds() -> None:
    meter = RateMeter()
    for second in range(10):
        meter.add(200, NOW + second * 1_000)
    assert meter.per_s(NOW + 9_500) == 200
    assert meter.steps(NOW + 9_500) == [200] * 9
    assert meter.per_s(NOW + 60_000) == 0


def test_a_meter_is_bounded() -> None:
    meter = RateMeter()
    for second in range(1_000):
        meter.add(1, NOW + second * 1_000)
    assert len(meter._steps) <= 61


def test_click_rate_sums_surfaces_and_arms_of_the_newest_records_of_a_model() -> None:
    watch = Watch(ADA)
    for record in (
        a_metric("online", 100, 9, at=NOW - 10_000),
        a_metric("old", 500, 5, at=NOW - 10_000),
        a_metric("online", 900, 500, window="1h"),
        a_metric("online", 0, 0, kind="trial"),
        a_metric("popularity", 80, 2),
        a_metric("online", 100, 10),
        a_metric("online", 100, 30, surface="cart"),
    ):
        watch.note_metric(record)
    assert watch.feedback() == {"online": Feedback(200, 40), "popularity": Feedback(80, 2)}
    assert watch.feedback()["online"].ctr == 0.2


def test_rates_and_latencies_begin_when_the_shop_opens() -> None:
    watch = Watch(ADA)
    watch.note(an_element(0, accepted=5_000, lists=[a_list(1, 5_000)]), NOW)
    watch.open()
    assert (watch.latency(NOW), watch.trend(NOW + 5_000)) == (ListLatency(), [])
    assert watch.totals().sent == 5_000


# -- the followed shopper


def test_shelf_does_not_show_popular_items_under_another_title() -> None:
    followed = Followed("ada", NAMES)
    popular, trending = a_recommendation("tea-01", reason="popular"), a_recommendation("cup-01", reason="trending")
    viewed = a_recommendation("pot-01", reason="viewed")
    assert followed.shelves(None, a_recommendation(reason="popular"), a_recommendation(reason="viewed")) == []
    followed.note_action(Interaction("1", "click", NOW, "ada", item_id="tea-01"))
    similar = a_recommendation("cup-01", reason="similar")
    assert followed.shelves(popular, trending, viewed) == [
        NamedShelf("trending", ["Blue Cup"]),
        NamedShelf("recently viewed", ["Iron Pot"]),
    ]
    assert followed.shelves(similar, popular, a_recommendation(reason="viewed")) == [
        NamedShelf("similar to Green Tea Sencha", ["Blue Cup"]),
        NamedShelf("popular", ["Green Tea Sencha"]),
    ]


def test_new_items_are_marked_while_new() -> None:
    followed = Followed("ada", NAMES)
    followed.note_list(a_recommendation("cup-01", "pot-01"), NOW)
    assert [item.mark for item in followed.listed(NOW)] == ["", ""], "a first list is not news"
    followed.note_list(a_recommendation("tea-01", "pot-01", "cup-01"), NOW)
    assert followed.listed(NOW) == [
        MarkedItem("Green Tea Sencha", "new"),
        MarkedItem("Iron Pot", ""),
        MarkedItem("Blue Cup", ""),
    ]
    followed.note_list(a_recommendation("pot-01", "tea-01", "cup-01"), NOW + 3_000)
    assert followed.listed(NOW + 3_000)[0].mark == "up"
    assert {item.mark for item in followed.listed(NOW + 9_000)} == {""}


def test_list_cause_is_shown_once() -> None:
    followed = Followed("ada", NAMES)
    followed.note_action(Interaction("1", "click", NOW - 500, "ada", item_id="tea-01"))
    followed.note_action(Interaction("2", "search", NOW - 300, "ada", query="cups"))
    followed.note_action(Interaction("3", "click", NOW + 300, "ada", item_id="cup-01"))
    for _ in range(2):
        followed.note_own(OwnList(17, 42, NOW - 200))
    assert followed.stories() == ["ada clicked Green Tea Sencha → list v17, 42 ms later"]


def test_impressions_are_not_shown() -> None:
    followed = Followed("ada", NAMES)
    followed.note_action(Interaction("1", "impression", NOW, "ada", item_id="tea-01"))
    assert followed.actions() == []


# -- the picture


def test_picture_shows_the_key_figures() -> None:
    text = "\n".join(render(a_view(), 110, 39, colour=False))
    for words in (
        "online: 1,204 seen · 131 clicked · CTR 10.9 %   popularity: 80 seen · 2 clicked · CTR 2.5 %",
        "  similar to Blue Cup                 trending",
        "  Red Cup                             Iron Pot",
        "                                      Old Hat",
        "201 events/s",
        "143 lists/s",
        "p50 42 ms",
        "p99 97 ms",
        "1,230 = accepted 1,100 + duplicates 20 + denied 80 + rejected 30",
        "adds up",
        "4 under way",
        "missing_user 20 · malformed 10",
        "full 250 · session 30 · none 20",
        "3 s ago  clicked      Green Tea Sencha",
        "1 new Blue Cup",
        "list v17 · personalised",
        "42 ms later",
    ):
        assert words in text


def test_popular_list_is_not_shown_as_personal() -> None:
    text = "\n".join(render(a_view(list_reason="popular", list_version=NOW), 110, 32, colour=False))
    assert "the popular list" in text
    assert f"v{NOW}" not in text


def test_account_mismatch_is_shown_prominently() -> None:
    text = "\n".join(render(a_view(totals=JobTotals(10, 5, 0, 0, {})), 110, 32))
    assert "does not add up" in text


@pytest.mark.parametrize("width", [20, 40, 70, 80, 110, 132, 250])
@pytest.mark.parametrize("height", [5, 12, 20, 24, 34, 80])
def test_lines_fit_any_terminal(width: int, height: int) -> None:
    long = "A very long name of an item that nobody would ever write on a label, 茶, once more"
    view = a_view(
        actions=[ShopperAction(NOW - n * 1_000, "clicked", long, True) for n in range(40)],
        listed=[MarkedItem(long, "new")] * 12,
        stories=[long * 3] * 9,
        shelves=[NamedShelf(long, [long] * 9)] * 4,
        feedback={long: Feedback(10**9, 10**9)},
        notice=long,
        hint=long * 2,
    )
    lines = render(view, width, height)
    assert len(lines) <= height
    assert max(width_of(line) for line in lines) <= width
    assert [plain(line).rstrip() for line in lines] == render(view, width, height, colour=False)


@pytest.mark.parametrize("width", [40, 60, 80, 132])
def test_command_can_be_copied_from_any_width(width: int) -> None:
    hint = "curl -sH @.local/demo/authorization http://127.0.0.1:40123/v1/recommendations/shopper-0001"
    lines = render(a_view(hint=hint), width, 40, colour=False)
    ends = next(place for place, line in enumerate(lines) if place and not line.endswith("\\"))
    assert "\n".join(lines[1 : ends + 1]).replace("\\\n", "") == hint


def test_picture_without_data_is_drawn() -> None:
    view = a_view(
        latency=ListLatency(),
        totals=JobTotals(),
        levels={},
        last_reject=None,
        level=None,
        actions=[],
        listed=[],
        list_version=0,
        stories=[],
        trend=[],
        sent=0,
        shelves=[],
        feedback={},
    )
    text = "\n".join(render(view, 100, 30, colour=False))
    assert "nothing yet" in text
    assert "p50 –" in text


def test_names_cannot_inject_terminal_escapes() -> None:
    view = a_view(listed=[MarkedItem("tea\x1b[2J\x07", "")], name="a\x1b]0;x\x07")
    view = view._replace(shelves=[NamedShelf("a\x1b[2J", ["b\x1b[2J\x07"])], feedback={"m\x1b[2J": Feedback(1, 1)})
    escapes = re.findall("\x1b[^m]*.", "\n".join(render(view, 100, 30)))
    assert all(re.fullmatch("\x1b\\[[0-9;]*m", escape) for escape in escapes)
    assert "\x07" not in "\n".join(render(view, 100, 30))


@pytest.mark.parametrize("width", range(1, 14))
def test_truncated_text_has_the_requested_width_and_resets_colours(width: int) -> None:
    cut = fit(paint("茶 green", BOLD) + " tea", width)
    assert width_of(cut) == width
    assert cut.count("\x1b[1m") == cut.count("\x1b[0m")


# -- the screens


def test_terminal_is_restored_even_after_an_error() -> None:
    output = io.StringIO()
    with pytest.raises(RuntimeError), TerminalScreen(output) as screen:
        screen.draw(lambda width, height, colour: ["picture"])
        raise RuntimeError
    text = output.getvalue()
    places = [text.index(code) for code in ("\x1b[?1049h", "\x1b[?25l", "\x1b[?25h", "\x1b[?1049l")]
    assert all(first < second for first, second in pairwise(places))
    assert text.endswith("picture\n"), "the last picture stays"


def test_no_terminal_means_plain_blocks_without_escapes() -> None:
    output = io.StringIO()
    screen = screen_for(plain=False, output=output)
    assert isinstance(screen, PlainScreen)
    with screen:
        screen.draw(lambda width, height, colour: render(a_view(), width, height, colour))
    assert "\x1b" not in output.getvalue()
    assert "Green Tea Sencha" in output.getvalue()
