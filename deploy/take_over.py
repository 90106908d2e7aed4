"""Lets a second job take over from a running one (`freshet take-over`), without a moment in which nobody writes.

The second job reads the same topics and writes nothing until both jobs have agreed on a moment: the first one writes
what follows from records appended before it, the second one what follows from the others (:mod:`udfs.handover`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from adapters.flink.rest import FlinkRest
from adapters.kafka.opening import open_admin
from adapters.kafka.reading import open_consumer, partitions_of
from adapters.kafka.settings import KafkaSettings
from adapters.redis.handovers import Handovers
from adapters.waiting import until
from deploy.local.errors import SubmitError
from deploy.submission import Say, Submission, submit
from jobs.deployment import Deployment, on_side, other_side
from jobs.marks import connect_as_tenant
from jobs.registration import Registration, committed_offsets, last_recorded, successor
from jobs.running_jobs import jobs_by_epoch
from jobs.savepoints import running_job
from jobs.settings import Settings
from schemas import topics
from schemas.errors import FreshetError, NotReadyError, RestError
from schemas.handover import Handover

LEAD_MS: Final = 4_000
"""How long before the agreed moment it is announced."""
DECIDE_BEFORE_MS: Final = 500
CAUGHT_UP_MS: Final = 1_000
LOOK_EVERY_S: Final = 0.1
COMMITTED_WITHIN_S: Final = 10.0
BEHIND_MAX_S: Final = 24 * 3600.0
Offsets = Mapping[TopicPartition, int]


class TakeOver(NamedTuple):
    """The former job, its last savepoint, the job that has taken over, the agreed moment, and how far it was behind.

    `at_ms` is by the brokers' clock; `behind_ms` is a bound, measured at its last checkpoint before the agreement.
    """

    before: str
    savepoint: str
    job: str
    at_ms: int
    behind_ms: int


class _Jobs(NamedTuple):
    """The two jobs: their ids in Flink, their deployments, and the names of their consumer groups."""

    before: str
    job: str
    former: Deployment
    later: Deployment
    settings: Settings

    def kafka(self, deployment: Deployment) -> KafkaSettings:
        """The Kafka settings of one of them."""
        return on_side(self.settings, deployment.side).kafka


def take_over(
    path: Path, settings: Settings, how: Submission, savepoints: str | None, from_start: bool, say: Say
) -> TakeOver:
    """Submit a job beside the running one, let it catch up, and let it take over.

    It starts from a savepoint of the running job; `from_start`, with empty state from the beginning of the topics. If
    anything fails before both jobs have agreed, the running job goes on, and the other one is cancelled. Raises
    :class:`SubmitError`, and what Flink, Kafka and Redis raise.
    """
    rest = FlinkRest(how.flink or "")
    former = last_recorded(settings.kafka)
    if former is None:
        raise SubmitError("no submission is recorded from which another job could take over: use `freshet submit`")
    if (done := _complete(rest, settings, former, savepoints, say)) is not None:
        return done
    before = _running(rest, settings, former, say)
    parallelism = how.parallelism or max(vertex["parallelism"] for vertex in rest.get(f"/jobs/{before}")["vertices"])
    _expect_slots(rest, parallelism)
    savepoint = None if from_start else _savepoint(rest, before, savepoints, say)
    beside = how._replace(savepoint=savepoint, parallelism=parallelism, beside=before)
    job = submit(path, beside, say)
    say(f"job {job} catches up, and writes nothing; job {before} goes on")
    try:
        rest.wait_running(job)
        later = successor(settings.kafka)
        assert later is not None, "the submission has recorded it"
        jobs = _Jobs(before, job, former, later, settings)
        with closing(connect_as_tenant(settings)) as client:
            handovers = Handovers(client)
            behind_ms = _catch_up(rest, jobs, say)
            agreed = _agree(rest, jobs, handovers, say)
            say(f"agreed: job {job} writes what follows from records appended from {agreed.at} on")
    except BaseException:
        _give_up(rest, job, before, say)
        raise
    return finish(rest, jobs, agreed, behind_ms, savepoints, say)


def _complete(
    rest: FlinkRest, settings: Settings, recorded: Deployment, savepoints: str | None, say: Say
) -> TakeOver | None:
    """Complete a take-over that is agreed and not done, because the command before ended; None if there is none."""
    with closing(connect_as_tenant(settings)) as client:
        agreed = Handovers(client).read()
    if agreed is None or agreed.state != "agreed":
        return None
    later = recorded if recorded.epoch == agreed.to else successor(settings.kafka)
    running = jobs_by_epoch(rest, settings.job.name)
    if later is None or later.epoch != agreed.to or agreed.to not in running:
        raise SubmitError(
            f"a take-over is agreed, and its job (epoch {agreed.to}) does not run in Flink at {rest.url}: nobody "
            "writes until it does. Submit its last checkpoint or savepoint again with `freshet submit -s`"
        )
    say(f"completing the take-over by job {running[agreed.to]}, which is agreed")
    former = msgspec.structs.replace(later, epoch=agreed.since, side=other_side(later.side))
    jobs = _Jobs(running.get(agreed.since, ""), running[agreed.to], former, later, settings)
    return finish(rest, jobs, agreed, 0, savepoints, say)


def _running(rest: FlinkRest, settings: Settings, recorded: Deployment, say: Say) -> str:
    """The running job. Cancels one that was submitted to take over and did not, because the command before ended."""
    running, left = jobs_by_epoch(rest, settings.job.name), successor(settings.kafka)
    if left is not None and left.epoch in running:
        say(f"job {running[left.epoch]} was submitted to take over, and did not: it is cancelled")
        rest.cancel(running.pop(left.epoch))
    return running_job(rest.url, settings.job.name)


def finish(
    rest: FlinkRest, jobs: _Jobs, agreed: Handover, behind_ms: int, savepoints: str | None, say: Say
) -> TakeOver:
    """What follows once both jobs have agreed: record the later one, and stop the former when it has written its part.

    Nothing is lost if this ends early: the later job writes already. Run the command again to complete it.
    """
    settings = jobs.settings
    with Registration(settings.kafka, settings.transaction_timeout_ms()) as registration:
        registration.promote(jobs.later)
    savepoint = _stop(rest, jobs, agreed, savepoints, say) if jobs.before else ""
    if left := _left(jobs.kafka(jobs.former), _offsets_at(jobs.kafka(jobs.former), agreed.at)):
        say(
            f"the former job ended before it had written its part: what followed from {left} records, as clean events "
            "and audit records, is lost; lists and consents are complete"
        )
    with closing(connect_as_tenant(settings)) as client:
        Handovers(client).change(agreed, "done")
    return TakeOver(jobs.before, savepoint, jobs.job, agreed.at, behind_ms)


def _stop(rest: FlinkRest, jobs: _Jobs, agreed: Handover, savepoints: str | None, say: Say) -> str:
    say(f"job {jobs.before} completes its part")
    _wait_until_past(rest, jobs, agreed)
    savepoint = rest.stop_with_savepoint(jobs.before, savepoints)
    say(f"job {jobs.before} stopped; its state is in {savepoint}")
    return savepoint


def _expect_slots(rest: FlinkRest, parallelism: int) -> None:
    free = int(rest.get("/overview")["slots-available"])
    if free < parallelism:
        raise SubmitError(
            f"Flink has {free} free task slots, and a second job with parallelism {parallelism} needs as many beside "
            "the running one: add TaskManagers for the time of the take-over, or use `freshet upgrade`"
        )


def _savepoint(rest: FlinkRest, job: str, directory: str | None, say: Say) -> str:
    say(f"taking a savepoint of job {job}, which goes on")
    operation = rest.take_savepoint(job, directory, COMMITTED_WITHIN_S * 60)
    if operation.get("failure-cause"):
        raise RestError(f"no savepoint of job {job} could be taken: {str(operation['failure-cause'])[:1000]}")
    return str(operation["location"])


def _give_up(rest: FlinkRest, job: str, before: str, say: Say) -> None:
    say(f"no take-over: job {before} goes on, and job {job} is cancelled")
    try:
        rest.cancel(job)
    except (RestError, NotReadyError) as error:
        say(f"job {job} could not be cancelled, and writes nothing; cancel it: {error}")


def _catch_up(rest: FlinkRest, jobs: _Jobs, say: Say) -> int:
    """Wait until the later job is less than :data:`CAUGHT_UP_MS` behind; returns a bound of how much, in ms.

    A checkpoint that begins after a moment and contains all that was appended before it bounds how far the job is
    behind. If the checkpoint itself takes longer than :data:`CAUGHT_UP_MS`, no smaller bound can be had, and it counts.
    """
    kafka, end_s, behind_ms = jobs.kafka(jobs.later), time.monotonic() + BEHIND_MAX_S, 0
    while time.monotonic() < end_s:
        began_s, wanted = time.monotonic(), _end_offsets(kafka)
        rest.checkpoint(jobs.job)
        took_ms = round(1_000 * (time.monotonic() - began_s))
        left = _left(kafka, wanted)
        if left:
            end_committed_s = time.monotonic() + 1.0  # Flink commits a moment after a checkpoint
            while left and time.monotonic() < end_committed_s:
                time.sleep(LOOK_EVERY_S)
                left = _left(kafka, wanted)
        if not left:
            behind_ms = took_ms
            say(f"job {jobs.job} has caught up: it is at most {behind_ms} ms behind")
            return behind_ms
        say(f"job {jobs.job} is {left} records behind")
        time.sleep(CAUGHT_UP_MS / 1_000)
    raise SubmitError(f"job {jobs.job} did not catch up within {BEHIND_MAX_S / 3600:.0f} hours")


def _agree(rest: FlinkRest, jobs: _Jobs, handovers: Handovers, say: Say) -> Handover:
    """Announce a moment, and let both jobs agree on it. Raises :class:`SubmitError` if one of them does not in time."""
    settings = jobs.settings
    with Registration(settings.kafka, settings.transaction_timeout_ms()) as registration:
        if registration.recorded is None or registration.recorded.epoch != jobs.former.epoch:
            raise SubmitError("another submission was recorded meanwhile: see which job runs, and start again")
        at = registration.clock_ms() + LEAD_MS
    begun_s = time.monotonic()
    announced = Handover(jobs.former.epoch, jobs.later.epoch, at, "announced")
    if not handovers.announce(announced):
        raise SubmitError("another take-over is under way: wait for its end, and start again")
    wanted = {
        jobs.former.epoch: _subtasks(rest, jobs.before),
        jobs.later.epoch: _subtasks(rest, jobs.job),
    }
    end_s = begun_s + (LEAD_MS - DECIDE_BEFORE_MS) / 1_000
    missing = dict(wanted)
    while missing and time.monotonic() < end_s:
        missing = {epoch: count for epoch, count in missing.items() if handovers.ready(announced, epoch, count) < count}
        time.sleep(LOOK_EVERY_S if missing else 0)
    if not missing and handovers.change(announced, "agreed"):
        return msgspec.structs.replace(announced, state="agreed")
    handovers.change(announced, "dropped")
    late = jobs.before if jobs.former.epoch in missing else jobs.job
    raise SubmitError(
        f"job {late} did not agree within {LEAD_MS} ms: it restarts, is more than that behind, or cannot reach Redis. "
        "Start again when it runs well, or use `freshet upgrade`, which needs no agreement"
    )


def _subtasks(rest: FlinkRest, job: str) -> int:
    """How many subtasks write lists."""
    vertices = rest.get(f"/jobs/{job}")["vertices"]
    return max(int(vertex["parallelism"]) for vertex in vertices if "personalise" in vertex["name"])


def _wait_until_past(rest: FlinkRest, jobs: _Jobs, agreed: Handover) -> None:
    """Wait until a checkpoint of the former job contains all records appended before the agreed moment.

    Then, or with the savepoint that it is stopped with, it has written all that follows from them. It signs the end of
    its audit trail within an interval of heads.
    """
    kafka = jobs.kafka(jobs.former)
    left_s = agreed.at / 1_000 - time.time() + jobs.settings.audit.heads_every_ms / 1_000
    time.sleep(max(0.0, left_s) + 1.0)
    wanted = _offsets_at(kafka, agreed.at)

    def is_past() -> bool:
        rest.checkpoint(jobs.before)
        return _left(kafka, wanted) == 0

    until(is_past, f"job {jobs.before} to complete its part", BEHIND_MAX_S, 0.5)


@contextmanager
def _consumer(kafka: KafkaSettings) -> Iterator[tuple[Any, list[TopicPartition]]]:
    consumer = open_consumer(kafka)
    try:
        names = (topics.INTERACTIONS, topics.CONSENTS, topics.CONTROL)
        yield consumer, [one for name in names for one in partitions_of(consumer, kafka.topic(name))]
    finally:
        consumer.close()


def _end_offsets(kafka: KafkaSettings) -> Offsets:
    with _consumer(kafka) as (consumer, partitions):
        return dict(consumer.end_offsets(partitions))


def _offsets_at(kafka: KafkaSettings, at_ms: int) -> Offsets:
    """The offset of the first record of each partition appended at `at_ms` or later; its end if there is none."""
    with _consumer(kafka) as (consumer, partitions):
        ends = consumer.end_offsets(partitions)
        found = consumer.offsets_for_times(dict.fromkeys(partitions, at_ms))
        return {one: ends[one] if found.get(one) is None else found[one].offset for one in partitions}


def _left(kafka: KafkaSettings, wanted: Offsets) -> int:
    """How many records before the offsets `wanted` are in no completed checkpoint of the job of this group."""
    with closing(open_admin(kafka)) as admin:
        try:
            committed = committed_offsets(admin, kafka.group())
        except KafkaError as error:
            raise FreshetError(
                f"the offsets of group {kafka.group()} could not be read: {type(error).__name__}"
            ) from None
    with _consumer(kafka) as (consumer, partitions):
        begins = consumer.beginning_offsets(partitions)
    at = {one: committed[one].offset if one in committed else begins.get(one, 0) for one in wanted}
    return sum(max(0, offset - max(at[one], begins.get(one, 0))) for one, offset in wanted.items())
