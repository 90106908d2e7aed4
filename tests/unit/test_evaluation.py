"""Steps, protocols and measures of an evaluation, and the page that shows them."""

import math
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.first_list import first_list
from evaluation.job_twin import ANY_ITEM, JobRules, LearnerTwin, UsersTwin
from evaluation.measures import QuestionTable, measure, novelty
from evaluation.methods import OnlineMethod
from evaluation.report_page import page
from evaluation.served import served_over_fresh
from evaluation.side_by_side import Asked, replay
from evaluation.steps import Protocol, Step, plan, rows_before_questions, steps_in_order
from evaluation.study import ONLINE, StudyOptions, study
from models.interactions import Interactions
from schemas.errors import ModelError
from schemas.events import KIND_OF
from tests.support.models import naive_ndcg
from tests.support.vocabulary import BEGINNING, DAY, SECOND
from udfs.due import RefreshSettings

VIEW, BUY = KIND_OF["view"], KIND_OF["purchase"]
ONE_BIT_EACH = (0, 1, 2, 3)


def a_stream(*events: tuple[int, int, int], kinds: list[int] | None = None) -> Interactions:
    """Interactions from (user, second, item)."""
    users, seconds, items = (np.array(column, np.int64) for column in zip(*events, strict=True))
    ids = [f"item-{number}" for number in range(int(items.max()) + 1)]
    return Interactions(users, items, BEGINNING + seconds * SECOND, np.array(kinds or [VIEW] * len(users)), ids)


def told(steps: list[Step], flag: str) -> list[tuple[int, list[int]]]:
    """The (user, items) of the steps with a flag."""
    return [(step.user, step.items) for step in steps if getattr(step, flag)]


# -- measures


@given(
    ranked=st.lists(st.integers(0, 40), unique=True, max_size=30),
    answers=st.sets(st.integers(0, 40), min_size=1, max_size=15),
    counts=st.lists(st.integers(0, 50), min_size=41, max_size=41),
)
def test_measures_equal_their_naive_twins(ranked: list[int], answers: set[int], counts: list[int]) -> None:
    ndcg, hit, recall, reciprocal = measure(ranked, answers)
    assert ndcg == pytest.approx(naive_ndcg(ranked, answers, 10))
    assert hit == bool(set(ranked[:10]) & answers)
    assert recall == len(set(ranked[:20]) & answers) / len(answers)
    ranks = [rank for rank, item in enumerate(ranked[:20], start=1) if item in answers]
    assert reciprocal == (1 / ranks[0] if ranks else 0)
    found = novelty(ranked, np.array(counts), sum(counts))
    surprises = [-math.log2((counts[item] + 1) / (sum(counts) + 41)) for item in ranked[:10]]
    assert found == pytest.approx(sum(surprises) / len(surprises)) if ranked else math.isnan(found)


def test_coverage_counts_the_first_ten_of_all_lists_and_empty_lists_have_no_novelty() -> None:
    tally = QuestionTable(items=40)
    tally.add(1, list(range(15)), {0}, np.zeros(40), 0)
    tally.add(2, [], {0}, np.zeros(40), 0)
    table = tally.close().table()
    assert (table["coverage@10"], table["questions"]) == (10 / 40, 2)
    assert table["novelty@10"] == pytest.approx(math.log2(40))
    assert table["hr@10"] == 0.5


# -- steps and protocols


def test_a_step_is_all_that_a_user_did_at_one_moment_each_item_once_with_its_heaviest_kind() -> None:
    stream = a_stream(
        (0, 1, 3), (0, 1, 2), (1, 1, 2), (0, 1, 3), (0, 9, 1), (1, 9, 1), kinds=[VIEW] * 3 + [BUY, VIEW, VIEW]
    )
    steps = plan(stream, Protocol.PREQUENTIAL)
    assert [(step.user, step.items) for step in steps] == [(0, [2, 3]), (1, [2]), (0, [1]), (1, [1])]
    assert steps[0].kinds == [VIEW, BUY]


def test_items_of_a_step_are_taught_in_the_order_of_the_file() -> None:
    steps = plan(a_stream((1, 1, 0), (0, 1, 3), (0, 1, 2), (0, 1, 3), (1, 2, 0)), Protocol.PREQUENTIAL)
    assert [step.items for step in steps] == [[3, 2], [0], [0]]


def test_lines_in_order_are_steps_of_their_own() -> None:
    stream = a_stream((0, 1, 3), (0, 1, 2), (0, 1, 3), (0, 2, 0))
    assert [step.items for step in plan(stream, Protocol.PREQUENTIAL, in_order=True)] == [[3], [2], [3], [0]]


def test_prequential_asks_in_the_second_half_and_teaches_all() -> None:
    steps = plan(a_stream((0, 1, 0), (1, 2, 1), (0, 3, 2), (2, 4, 3), (1, 5, 0), (0, 6, 1)), Protocol.PREQUENTIAL)
    assert told(steps, "asked") == [(1, [0]), (0, [1])], "user 2 has no history"
    assert all(step.taught for step in steps)
    assert rows_before_questions(steps) == [0, 1, 2, 3]


def test_global_split_teaches_nothing_after_the_moment() -> None:
    steps = plan(a_stream(*[(n % 2, n, n) for n in range(10)]), Protocol.GLOBAL_TIME)
    assert told(steps, "asked") == [(0, [8]), (1, [9])]
    assert [step.taught for step in steps] == [True] * 8 + [False] * 2


def test_leave_one_out_asks_the_last_step_of_each_user_after_all_others() -> None:
    steps = plan(a_stream((0, 1, 0), (0, 2, 1), (1, 3, 2), (2, 4, 0), (1, 5, 1), (2, 6, 3)), Protocol.LEAVE_ONE_OUT)
    assert told(steps, "taught") == [(0, [0]), (1, [2]), (2, [0])]
    assert told(steps, "asked") == [(0, [1]), (1, [1]), (2, [3])]
    assert steps[3].at_ms == BEGINNING + 4 * SECOND, "asked about when all others have been taught"


@pytest.mark.parametrize("protocol", Protocol)
def test_nothing_to_ask_is_an_error_that_names_what_counts(protocol: Protocol) -> None:
    with pytest.raises(ModelError, match=r"nothing to evaluate.*purchase"):
        plan(a_stream((0, 1, 0), (1, 1, 1)), protocol)


# -- as the job does it


def test_model_is_asked_before_it_learns_and_learning_is_published_two_seconds_later() -> None:
    learner, users = LearnerTwin(JobRules()), UsersTwin(JobRules().profile)
    for user in (0, 1):
        took = users.take(f"user-{user}", BEGINNING, ["tea", "cup"], [VIEW, VIEW], user)
        learner.learn(took, BEGINNING)
    learner.follow(BEGINNING + 2 * SECOND - 1)
    assert learner.model.tables.is_empty
    learner.follow(BEGINNING + 2 * SECOND)
    assert set(learner.model.tables.ids) >= {"tea", "cup"}


def test_nothing_is_learned_from_steps_that_are_not_taught() -> None:
    stream = a_stream(*[(user, 10 * step + user, step) for step in range(10) for user in range(4)])
    method = OnlineMethod(stream.item_ids, JobRules(ANY_ITEM))
    measured = replay(
        plan(stream, Protocol.GLOBAL_TIME), {ONLINE: method}, stream.item_ids, JobRules(ANY_ITEM)
    ).measured
    assert measured[ONLINE].column("hr@10").tolist() == [0.0] * 8, "items 8 and 9 first occur after the moment"


def test_lists_leave_out_what_the_user_had_only_where_the_rules_say_so() -> None:
    ids = [f"item-{number}" for number in range(6)]
    listed = {}
    for name, rules in (("all", JobRules(ANY_ITEM)), ("new", JobRules())):
        method, users = OnlineMethod(ids, rules), UsersTwin(rules.profile)
        for moment, item in enumerate([0, 1, 2, 3, 4, 5]):
            for user in (0, 1):
                state = users.state_of(f"user-{user}")
                asked = Asked(user, BEGINNING + moment * 10 * SECOND, None, f"user-{user}", state)  # type: ignore[arg-type]
                took = users.take(f"user-{user}", asked.at_ms, [ids[item]], [VIEW], user)
                method.learn(asked, [item], took)
        state = users.state_of("user-0")
        asked = Asked(0, BEGINNING + 100 * SECOND, None, "user-0", state)  # type: ignore[arg-type]
        listed[name] = method.rank(asked)
    assert listed["new"] == []
    assert set(listed["all"]) == set(range(6))


# -- as readers get it


def returning(days: int) -> Interactions:
    """Six users who take items in a circle, an hour apart; all come back after `days`."""
    visits = [(user, 3_600 * step + user, (user + step) % 8) for step in range(12) for user in range(6)]
    return a_stream(*visits, *[(user, 86_400 * days + user, (user + 12) % 8) for user in range(6)])


@pytest.mark.parametrize(("days", "popular"), [(2, 0), (30, 0), (390, 0), (400, 6)])
def test_readers_get_their_own_list_until_their_profile_is_deleted(days: int, popular: int) -> None:
    stream, rules = returning(days), JobRules(ANY_ITEM)
    steps = plan(stream, Protocol.LEAVE_ONE_OUT)
    found = served_over_fresh(steps, stream.item_ids, rules)
    assert (len(found.users), found.popular) == (6, popular)
    if not popular:
        assert found.ratio() == pytest.approx(1.0, abs=0.05)


def test_lists_that_are_not_refreshed_end_and_their_users_get_what_is_popular() -> None:
    stream = returning(30)
    steps = plan(stream, Protocol.LEAVE_ONE_OUT)
    before = JobRules(ANY_ITEM, refresh=RefreshSettings(active_within_ms=7 * DAY, idle_share=0))
    assert served_over_fresh(steps, stream.item_ids, before).popular == 6


def test_idle_users_cost_fewer_lists_the_longer_they_are_away() -> None:
    stream = returning(80)
    steps = plan(stream, Protocol.PREQUENTIAL)
    all_alike = JobRules(ANY_ITEM, refresh=RefreshSettings(idle_share=0))
    written = [served_over_fresh(steps, stream.item_ids, rules).written for rules in (JobRules(ANY_ITEM), all_alike)]
    assert written[0] < 0.5 * written[1]


def test_empty_shop_has_a_personal_list_within_the_first_session_that_resembles_others() -> None:
    visits = [(user, 600 * user + 10 * place, item) for user in range(4) for place, item in enumerate([0, 1, 2, 3])]
    found = first_list(steps_in_order(a_stream(*visits)), [f"item-{n}" for n in range(4)], JobRules())
    assert (found.resembling, found.session, found.event) == (2, 3, 1), "items of one user are not published"
    assert (found.in_time, found.possible) == (False, False), "both users have all that two users met"
    others = [(4, 5, 3), (5, 15, 3)]
    found = first_list(steps_in_order(a_stream(*others, *visits)), [f"item-{n}" for n in range(4)], JobRules())
    assert found.in_time
    assert found.possible


# -- the page


class Inspected(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [name for name, _ in attrs if name in ("src", "href", "onload", "onclick", "xlink:href")]


def test_page_needs_no_script_and_no_other_file_and_escapes_what_files_say() -> None:
    stream = a_stream(*[(user, 10 * step + user, (user + step) % 12) for step in range(12) for user in range(8)])
    names = np.array([("<script>alert(1)</script>", "fr")[user % 2] for user in stream.users.tolist()], object)
    labelled = Interactions(
        stream.users, stream.items, stream.ts_ms, stream.kinds, stream.item_ids, labels=("country", names)
    )
    found = study(labelled, StudyOptions())
    assert set(found.tables["all"].segments("country")) == {"<script>alert(1)</script>", "fr"}
    inspected = Inspected()
    inspected.feed(text := page(found, "<b>.csv"))
    assert "script" not in inspected.tags and inspected.tags.count("svg") >= 6
    assert inspected.links == [] and "http" not in text and "&lt;b&gt;.csv" in text and "url(" not in text
