"""Whether a job may start from a snapshot, and why not: the rules, on what was read of both.

:mod:`jobs.snapshots` reads the snapshot, :mod:`jobs.job_plan` the job. A submission, `freshet upgrade` and `freshet
state check` all ask :func:`judge`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from jobs.deployment import LAYOUT, complaint_about_snapshot
from schemas.topics import DAY_MS

REPORTED: Final = "snapshot: "
"""The prefix of the line, with a report as JSON, that the job prints if it is only to examine a snapshot."""
_OF_SINKS: Final = (": Writer", ": Committer")
"""What Flink appends to the name of a sink. The uids of sinks change with each take-over."""
_VERSIONED: Final = re.compile(r"(.+)-v(\d+)")


class Verdict(StrEnum):
    """Whether a job may start from a snapshot; the later ones outweigh the earlier ones."""

    COMPATIBLE = "compatible"
    NEEDS_BACKFILL = "needs backfill"
    """Its state is laid out for other settings, or by code too old: the job must rebuild it from the topics."""
    REFUSED = "refused"


class HeldOperator(NamedTuple):
    """An operator in a snapshot. `states` are the names of its keyed states; `has_state` says if it holds any state."""

    id: str
    name: str
    parallelism: int
    has_state: bool
    states: frozenset[str]


class Snapshot(NamedTuple):
    """What a snapshot says of itself: when it was written, for which settings, in which backends' formats.

    `formats` are the backends that alone can read its keyed state; canonical savepoints have none. `pins` are the
    identities of the deployment in it, one for each subtask; early releases recorded none.
    """

    written_ms: int | None
    formats: frozenset[str]
    pins: tuple[Mapping[str, str], ...]
    operators: tuple[HeldOperator, ...]


class JobPlan(NamedTuple):
    """What a job expects of a snapshot. `operators` are names by Flink's operator id; `states` are all it reads."""

    operators: Mapping[str, str]
    states: frozenset[str]
    pins: Mapping[str, str]
    backend: str
    kept_ms: int


class StateFinding(msgspec.Struct, frozen=True):
    """One reason against the snapshot, as a sentence that says how to mend it."""

    verdict: Verdict
    why: str


class StateReport(NamedTuple):
    """The verdict, what speaks against the snapshot (worst first), and what else a data engineer wants to know."""

    verdict: Verdict
    findings: tuple[StateFinding, ...]
    remarks: tuple[str, ...]


def judge(snapshot: Snapshot, plan: JobPlan, now_ms: int) -> StateReport:
    """Compare the snapshot with the job that is to start from it at `now_ms`."""
    findings = [
        *_about_age(snapshot, plan, now_ms),
        *_about_pins(snapshot, plan),
        *_about_format(snapshot, plan),
        *_about_operators(snapshot, plan),
        *_about_states(snapshot, plan),
    ]
    order = list(Verdict)
    findings.sort(key=lambda finding: -order.index(finding.verdict))
    verdict = findings[0].verdict if findings else Verdict.COMPATIBLE
    return StateReport(verdict, tuple(findings), tuple(_remarks(snapshot, plan, now_ms)))


def complaint_about_age(written_ms: int | None, kept_ms: int, now_ms: int) -> str | None:
    """Why a snapshot that was written at `written_ms` must not be used any more; None if it may, or if nobody knows."""
    if written_ms is None or now_ms - written_ms <= kept_ms:
        return None
    return (
        f"the snapshot is {(now_ms - written_ms) / DAY_MS:.1f} days old, and privacy.snapshots_kept_ms allows "
        f"{kept_ms / DAY_MS:.1f}: withdrawals and erasures since then may no longer be readable. Submit without "
        "-s: profiles are lost, consents are read again from the topic"
    )


def _about_age(snapshot: Snapshot, plan: JobPlan, now_ms: int) -> Iterator[StateFinding]:
    if complaint := complaint_about_age(snapshot.written_ms, plan.kept_ms, now_ms):
        yield StateFinding(Verdict.REFUSED, complaint)


def _about_pins(snapshot: Snapshot, plan: JobPlan) -> Iterator[StateFinding]:
    for pins in snapshot.pins:
        if complaint := complaint_about_snapshot(pins, plan.pins):
            differing = {name for name in pins.keys() & plan.pins.keys() if pins[name] != plan.pins[name]}
            yield StateFinding(Verdict.NEEDS_BACKFILL if differing <= LAYOUT else Verdict.REFUSED, complaint)
            return


def _about_format(snapshot: Snapshot, plan: JobPlan) -> Iterator[StateFinding]:
    if others := sorted(snapshot.formats - {plan.backend}):
        written = others[0]
        yield StateFinding(
            Verdict.REFUSED,
            f"the snapshot is in the format of the state backend {written}, and this submission has state.backend.type "
            f"{plan.backend}: only a canonical savepoint can be restored by another backend. Submit it with "
            f"-D state.backend.type={written}, stop that job with `flink stop --type canonical`, and submit that "
            "savepoint",
        )


def _about_operators(snapshot: Snapshot, plan: JobPlan) -> Iterator[StateFinding]:
    mode = "python.execution-mode"
    if any(pins.get(mode, "") != plan.pins.get(mode, "") for pins in snapshot.pins):
        return  # the uids contain the mode, so all keyed operators would be missing
    unknown = [one for one in snapshot.operators if one.has_state and one.id not in plan.operators]
    sinks = {name for name in plan.operators.values() if name.endswith(_OF_SINKS)}
    if unknown and all(one.name in sinks for one in unknown):
        yield StateFinding(
            Verdict.REFUSED,
            "the snapshot is of the other job of a take-over: its open output belongs to that one. Take a savepoint of "
            "the job that runs now; the last one of the other is of no use any more",
        )
        return
    for operator in unknown:
        yield StateFinding(
            Verdict.REFUSED,
            f"the snapshot holds state of the operator {operator.name}, which this job does not have: it would be "
            "out of reach of erasures, and Flink refuses it. Submit the release, and the settings, that have this "
            "operator",
        )


def _about_states(snapshot: Snapshot, plan: JobPlan) -> Iterator[StateFinding]:
    known = _versions(plan.states)
    for operator in snapshot.operators:
        for state in sorted(operator.states - plan.states):
            stem, version = _split(state)
            place = f"the state {state} of the operator {operator.name}"
            if stem in known and version > max(known[stem]):
                why = f"{place} was written by newer code: this one knows {stem}-v{max(known[stem])}. Use that release"
                yield StateFinding(Verdict.REFUSED, f"{why} or a later one")
            elif stem in known:
                why = f"{place} is older than all that this code reads ({stem}-v{min(known[stem])} and later): go "
                yield StateFinding(Verdict.NEEDS_BACKFILL, f"{why}through a release that reads both, or rebuild it")
            else:
                why = f"{place} is unknown to this code: it would be out of reach of erasures. Use the release that"
                yield StateFinding(Verdict.REFUSED, f"{why} wrote it, or a later one")


def _versions(states: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for stem, version in map(_split, states):
        found.setdefault(stem, []).append(version)
    return found


def _split(state: str) -> tuple[str, int]:
    """
    >>> _split("due-v2"), _split("due")
    (('due', 2), ('due', 0))
    """
    found = _VERSIONED.fullmatch(state)
    return (found[1], int(found[2])) if found else (state, 0)


def _remarks(snapshot: Snapshot, plan: JobPlan, now_ms: int) -> Iterator[str]:
    if snapshot.written_ms is not None:
        yield f"written {(now_ms - snapshot.written_ms) / DAY_MS:.1f} days ago"
    if snapshot.operators:
        widest = max(operator.parallelism for operator in snapshot.operators)
        kind = f"in the format of {', '.join(sorted(snapshot.formats))}" if snapshot.formats else "canonical"
        yield f"taken with parallelism {widest}; {kind}"
    if not snapshot.pins:
        yield "it records no identity of a deployment: its settings were not compared"
    held = {operator.id for operator in snapshot.operators}
    if added := sorted(name for one, name in plan.operators.items() if one not in held):
        yield f"new operators, which begin without state: {', '.join(added)}"
    states = {state for operator in snapshot.operators for state in operator.states}
    newer = sorted(state for state in plan.states - states if _split(state)[0] not in _versions(states))
    if newer:
        yield f"states that the snapshot lacks, and that begin empty: {', '.join(newer)}"
