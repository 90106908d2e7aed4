"""Whether a job may start from a snapshot: each way in which the two can differ, and which outweighs which."""

import doctest
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from jobs import declared_states as declared_module
from jobs import state_report
from jobs.declared_states import declared_states, names_in
from jobs.state_report import HeldOperator, JobPlan, Snapshot, StateReport, Verdict, judge
from schemas.topics import DAY_MS

NOW = 1_700_000_000_000
PINS = {"job.buckets": "4", "python.execution-mode": "thread", "redis.prefix": '""', "the id of topic consents": "c-1"}
STATES = frozenset({"users-v1", "due-v1", "due-v2"})
PLAN = JobPlan({"1": "personalise", "2": "popular"}, STATES, PINS, "hashmap", DAY_MS)
USERS = HeldOperator("1", "personalise", 2, True, frozenset({"users-v1", "due-v2"}))
POPULAR = HeldOperator("2", "popular", 2, True, frozenset())


def report(
    *operators: HeldOperator, pins: Mapping[str, str] = PINS, formats: frozenset[str] = frozenset(), age_ms: int = 0
) -> StateReport:
    return judge(Snapshot(NOW - age_ms, formats, (pins,), operators or (USERS, POPULAR)), PLAN, NOW)


def test_snapshot_of_this_code_is_compatible():
    found = report(age_ms=DAY_MS)
    assert found.verdict == Verdict.COMPATIBLE and found.findings == ()
    assert "written 1.0 days ago" in found.remarks and "taken with parallelism 2; canonical" in found.remarks


@pytest.mark.parametrize("pin", ["job.buckets", "python.execution-mode"])
def test_other_layout_of_state_needs_backfill(pin: str):
    found = report(pins={**PINS, pin: "other"})
    assert found.verdict == Verdict.NEEDS_BACKFILL
    assert f"the snapshot was taken with {pin} other" in found.findings[0].why


def test_state_of_another_deployment_is_refused_even_if_it_could_be_laid_out_anew():
    found = report(pins={**PINS, "job.buckets": "8", "the id of topic consents": "c-2"})
    assert [finding.verdict for finding in found.findings] == [Verdict.REFUSED]


def test_other_mode_is_one_finding_and_not_one_for_each_missing_operator():
    other = USERS._replace(id="9")
    found = report(other, pins={**PINS, "python.execution-mode": "process"})
    assert found.verdict == Verdict.NEEDS_BACKFILL and len(found.findings) == 1


def test_snapshot_of_the_job_that_was_followed_is_refused_as_that():
    plan = PLAN._replace(operators={**PLAN.operators, "3": "events: Writer"})
    other = HeldOperator("9", "events: Writer", 1, True, frozenset())
    found = judge(Snapshot(NOW, frozenset(), (PINS,), (USERS, POPULAR, other)), plan, NOW)
    assert found.verdict == Verdict.REFUSED
    assert "the other job of a take-over" in found.findings[0].why
    unknown = report(USERS, POPULAR, HeldOperator("9", "popular", 1, True, frozenset()))
    assert "the operator popular, which this job does not have" in unknown.findings[0].why


def test_snapshot_older_than_tombstones_is_refused():
    found = report(age_ms=2 * DAY_MS)
    assert found.verdict == Verdict.REFUSED and "2.0 days old" in found.findings[0].why


def test_format_of_another_backend_is_refused():
    found = report(formats=frozenset({"rocksdb"}))
    assert found.verdict == Verdict.REFUSED and "only a canonical savepoint" in found.findings[0].why
    assert report(formats=frozenset({"hashmap"})).verdict == Verdict.COMPATIBLE


def test_removed_operator_is_refused_unless_it_holds_nothing():
    removed = HeldOperator("9", "trending", 1, True, frozenset())
    found = report(USERS, removed)
    assert found.verdict == Verdict.REFUSED and "trending" in found.findings[0].why
    assert report(USERS, removed._replace(has_state=False)).verdict == Verdict.COMPATIBLE


def test_added_operator_and_state_are_remarks():
    found = report(USERS._replace(states=frozenset({"due-v2"})))
    assert found.verdict == Verdict.COMPATIBLE
    assert "new operators, which begin without state: popular" in found.remarks
    assert "states that the snapshot lacks, and that begin empty: users-v1" in found.remarks


def test_older_version_that_the_code_still_reads_is_compatible():
    assert report(USERS._replace(states=frozenset({"due-v1"}))).verdict == Verdict.COMPATIBLE


@pytest.mark.parametrize(
    ("state", "verdict", "why"),
    [
        ("users-v2", Verdict.REFUSED, "was written by newer code: this one knows users-v1"),
        ("users-v10", Verdict.REFUSED, "was written by newer code"),
        ("users-v0", Verdict.NEEDS_BACKFILL, "is older than all that this code reads"),
        ("wishes-v1", Verdict.REFUSED, "is unknown to this code"),
    ],
)
def test_state_that_the_code_does_not_read_is_not_left_behind(state: str, verdict: Verdict, why: str):
    found = report(USERS._replace(states=frozenset({state, "due-v2"})))
    assert found.verdict == verdict and why in found.findings[0].why


def test_worst_finding_is_first():
    found = report(pins={**PINS, "job.buckets": "8"}, formats=frozenset({"rocksdb"}))
    assert [finding.verdict for finding in found.findings] == [Verdict.REFUSED, Verdict.NEEDS_BACKFILL]


def test_snapshot_without_identity_says_so():
    found = judge(Snapshot(None, frozenset(), (), (USERS, POPULAR)), PLAN, NOW)
    assert "it records no identity of a deployment: its settings were not compared" in found.remarks


def test_every_documented_state_is_found_in_the_sources():
    """The page lists all but the one in Java."""
    page = Path(__file__).parents[2] / "docs" / "internals" / "state-formats.md"
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in row.split("`")[1::2]}
    assert documented == declared_states()


def test_name_of_a_state_that_is_not_written_out_is_an_error():
    with pytest.raises(ValueError, match="line 1: write out the name"):
        list(names_in("context.get_state(ValueStateDescriptor(NAME, kind))"))


@pytest.mark.parametrize("module", [declared_module, state_report])
def test_examples_are_true(module: ModuleType):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
