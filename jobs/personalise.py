"""The personalise job: the whole path of an event, from top to bottom.

    flink run -d -pyfs freshet.zip -pyexec <python> -pyclientexec <python> -pym jobs.personalise --settings freshet.toml

::

     interactions ─┐
     consents ─────┼─ ingest ───────────► key by bucket ─► personalise ─► score ─► write ─► lists in Redis
     control ──────┘  decode, validate,                    consent,       ONNX     versioned, consent-fenced
                      pseudonymise,                        dedupe,
                      pack per bucket                      profile
                                                             ├─► dead-letters, receipts, answers, events, audit
                                                             ├─► sums ─► key by segment ─► popular lists in Redis
                                                             ├─► counts of feedback ─► feedback ─► metrics
                                                             ├─► pairs of gains ─► judge ─► metrics, receipts, control
                                                             └─► lessons ─► learn ─► updates of the online model in
                                                                                     Redis, which `personalise` reads

Operators: `raw-records` (source), the snapshot guard and `batch` (Java), `ingest`, `gather` (Java), `personalise`,
`popular`, `learn`, `feedback`, `judge`, and the sinks `dead-letters`, `events`, `audit` and `audit-heads` (exactly
once), `receipts`, `answers`, `metrics` and `control` (at least once). `build` only wires them. When Redis has lost
data, `personalise` has marks written to `consents`. Once it has read all of them, it has caught up with every
acknowledged decision, and it writes consents and lists to Redis again (:mod:`udfs.generations`).
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pyflink.common import Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment

from adapters.secrets.key_rings import load_key_ring
from jobs.application_mode import is_application_mode, patiently, recovered_job, rejoin, warn_without_recovery
from jobs.checkpoints import go_on_without_checkpoints
from jobs.checks import check_codecs, check_topics
from jobs.deployment import Deployment, deployment_of, encode_pins, on_side
from jobs.flink import (
    bucket_keys,
    describe_buckets,
    execution_mode,
    ignore_unclaimed_state,
    raw_records,
    relax_bundle_timer,
    sink_to_topic,
)
from jobs.handover_gate import handover_gate
from jobs.java_operators import gather_elements, record_batches, snapshot_guard, split_lines
from jobs.job_plan import job_plan
from jobs.marks import mark_submission
from jobs.open_transactions import end_transactions_left_open
from jobs.operators_jar import operators_jar
from jobs.redis_check import check_redis, claim_prefix
from jobs.registration import Registration, claim_group, newest_readable
from jobs.release import RELEASE, open_checked
from jobs.replacement import check_newest_checkpoint, replace_job
from jobs.running_jobs import expect_not_running, set_deployment_parameter
from jobs.settings import Settings, load_settings
from jobs.snapshots import check_snapshot, report_on, snapshot_path, state_backend, users_bits_by
from jobs.state_report import REPORTED, JobPlan, StateReport
from jobs.trail import trail_id
from jobs.workers import (
    check_openable,
    open_ingest,
    open_learn_parts,
    open_logging,
    open_personalise_parts,
    open_popular_parts,
)
from schemas import topics
from schemas.errors import FreshetError, SettingsError
from udfs.operators.audit_keeper import AUDIT, AUDIT_HEADS
from udfs.operators.feedback_keeper import FEEDBACK
from udfs.operators.feedback_operator import FeedbackOperator
from udfs.operators.gate import WriteGate
from udfs.operators.ingest_operator import IngestOperator
from udfs.operators.judge_operator import COMMANDS, JudgeOperator
from udfs.operators.learn_operator import LearnOperator
from udfs.operators.learning_keeper import LESSONS
from udfs.operators.outputs import ANSWERS, BYTES, CLEAN_EVENTS, RECEIPTS, REJECTS
from udfs.operators.personalise_operator import PersonaliseOperator
from udfs.operators.popular_operator import PopularOperator
from udfs.operators.shadow_keeper import TRIALS


class Streams(NamedTuple):
    """The job's input: each element of `raw` is a packed record: topic, partition, offset, append time, key, value."""

    raw: DataStream


class Outputs(NamedTuple):
    """The job's output besides Redis: streams of bytes that `sink` writes to topics. `published` and
    `learned` never emit a record.

    A record of `clean_events` or `audit` holds the JSON lines of one element.
    """

    rejects: DataStream
    clean_events: DataStream
    audit: DataStream
    audit_heads: DataStream
    receipts: DataStream
    answers: DataStream
    published: DataStream
    learned: DataStream
    metrics: DataStream
    commands: DataStream


def build(
    streams: Streams, settings: Settings, deployment: Deployment, keys: list[int], is_silent: bool = False
) -> Outputs:
    """Wire the operators. `keys[bucket]` is the stream key of a bucket. With `is_silent`, they write nothing until the
    job has taken over from another.

    The uids of the keyed operators contain the execution mode (thread or process), because the two modes cannot share
    state.
    """
    mode, epoch = deployment.mode, deployment.epoch
    elements = _ingested(streams, settings, deployment, keys)
    personalised = (
        gather_elements(elements.key_by(lambda element: element[0], key_type=Types.INT()), Types.INT())
        .process(
            PersonaliseOperator(
                _opening(settings, epoch, open_personalise_parts, settings, epoch, deployment.trail, is_silent)
            ),
            output_type=Types.ROW([Types.STRING(), BYTES]),
        )
        .uid(f"personalise-v1-{mode}")
        .name("personalise")
    )
    learned = (
        personalised.get_side_output(LESSONS)
        .key_by(lambda lessons: 0, key_type=Types.INT())
        .process(
            LearnOperator(_opening(settings, epoch, open_learn_parts, settings, epoch, is_silent)),
            output_type=BYTES,
        )
        .set_parallelism(1)
        .uid(f"learn-v1-{mode}")
        .name("learn")
    )
    published = (
        personalised.key_by(lambda sums: sums[0], key_type=Types.STRING())
        .process(
            PopularOperator(_opening(settings, epoch, open_popular_parts, settings, epoch, is_silent)),
            output_type=BYTES,
        )
        .uid(f"popular-v1-{mode}")
        .name("popular")
    )
    gate = gate_opening(settings, epoch, is_silent)
    judged, metrics = _judged(personalised, settings, mode, gate), _metrics(personalised, settings, mode, gate)
    return Outputs(
        personalised.get_side_output(REJECTS),
        personalised.get_side_output(CLEAN_EVENTS),
        personalised.get_side_output(AUDIT),
        personalised.get_side_output(AUDIT_HEADS),
        personalised.get_side_output(RECEIPTS).union(
            judged.get_side_output(RECEIPTS), metrics.get_side_output(RECEIPTS)
        ),
        personalised.get_side_output(ANSWERS),
        published,
        learned,
        metrics.union(judged),
        judged.get_side_output(COMMANDS),
    )


def _ingested(streams: Streams, settings: Settings, deployment: Deployment, keys: list[int]) -> DataStream:
    """Packed elements with the keys of their buckets."""
    opening = _opening(settings, deployment.epoch, open_ingest, settings, keys, deployment.users_bits_by())
    return (
        record_batches(streams.raw, settings.batch, deployment.mode)
        .process(IngestOperator(opening), output_type=Types.ROW([Types.INT(), BYTES]))
        .uid("ingest-v1")
        .name("ingest")
    )


def _metrics(personalised: DataStream, settings: Settings, mode: str, gate: Callable[[], WriteGate]) -> DataStream:
    """The records of feedback in the topic `metrics`; receipts of what has drifted are a side output."""
    return (
        personalised.get_side_output(FEEDBACK)
        .key_by(lambda sums: 0, key_type=Types.INT())
        .process(FeedbackOperator(settings.feedback, settings.drift, gate), output_type=BYTES)
        .set_parallelism(1)
        .uid(f"feedback-v1-{mode}")
        .name("feedback")
    )


def _judged(personalised: DataStream, settings: Settings, mode: str, gate: Callable[[], WriteGate]) -> DataStream:
    """What is known of trials, for `metrics`; verdicts and commands are side outputs."""
    return (
        personalised.get_side_output(TRIALS)
        .key_by(lambda trial: trial[0], key_type=Types.STRING())
        .process(JudgeOperator(settings.judge, settings.job.buckets, gate), output_type=BYTES)
        .set_parallelism(1)
        .uid(f"judge-v1-{mode}")
        .name("judge")
    )


def gate_opening(settings: Settings, epoch: int, is_silent: bool) -> Callable[[], WriteGate]:
    """What an operator that needs nothing but a gate calls to open it: a worker process may have no other operator, so
    this sets up its log, too.
    """
    return _opening(settings, epoch, handover_gate, settings, epoch, is_silent)


def _opening(settings: Settings, epoch: int, open_parts: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """What a worker calls to open an operator's parts: only with the release that was submitted."""
    logged = functools.partial(open_logging, settings.logs, settings.job.name, epoch)
    return functools.partial(
        open_checked, RELEASE, functools.partial(logged, functools.partial(open_parts, *arguments))
    )


def main(arguments: list[str]) -> None:
    """Submit the job with the options in `arguments`."""
    parser = argparse.ArgumentParser(prog="personalise", description="Submit the personalise job.")
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file, see jobs/settings.py")
    parser.add_argument(
        "--new-deployment",
        action="store_true",
        help="record these settings in place of those of the last submission; state cannot be restored under "
        "different settings, so leave out -s if they differ",
    )
    parser.add_argument(
        "--in-place-of",
        metavar="JOB",
        help="check and build everything while that job runs; submit once its savepoint is known (`freshet upgrade`)",
    )
    parser.add_argument(
        "--savepoint-from", metavar="PIPE", type=Path, help="the named pipe from which the savepoint of JOB is read"
    )
    parser.add_argument(
        "--report-snapshot",
        action="store_true",
        help="submit and record nothing: only say whether this job may start from the snapshot that -s names",
    )
    parser.add_argument(
        "--beside",
        metavar="JOB",
        help="submit a job that writes nothing and is to take over from that running job (`freshet take-over`)",
    )
    submit(parser.parse_args(arguments))


def submit(options: argparse.Namespace) -> None:
    """Check everything that can be checked, then submit.

    With `in_place_of`, all of it happens while that job runs, and the submission awaits its savepoint. A JobManager
    that has recovered this job runs this, too, and joins the job.
    """
    env = StreamExecutionEnvironment.get_execution_environment()
    if job := recovered_job(env):
        rejoin(env, job, options.settings)
        return
    settings, replaced = load_settings(options.settings), options.in_place_of
    env.set_max_parallelism(settings.job.max_parallelism)
    if options.report_snapshot:
        print(REPORTED + msgspec.json.encode(examine(env, settings)).decode(), flush=True)
        return
    check_openable(settings)
    go_on_without_checkpoints(env, settings.redis.outage_max_ms)
    if options.beside is not None:
        ignore_unclaimed_state(env)  # that of the sinks belongs to the job that still runs
    if replaced is not None:
        replace(env, settings, replaced, options.savepoint_from)
        return
    admit_once = functools.partial(admit, env, settings, options.new_deployment, options.beside)
    if is_application_mode(env):
        warn_without_recovery(env)
        deployment = patiently(admit_once)
    else:
        deployment = admit_once()
    assemble(env, settings, deployment, options.beside is not None)
    env.execute(settings.job.name)


def replace(env: StreamExecutionEnvironment, settings: Settings, replaced: str, orders: Path) -> None:
    """Prepare a submission while the job `replaced` runs, and complete it from the savepoint that `orders` names.

    The epoch is later than that of the running job, and is recorded once that has stopped: until then, it is the one
    that may write. If another submission is recorded meanwhile, this one is refused.
    """
    check_redis(settings.redis)
    deployment = expected(env, settings)
    is_examined = check_newest_checkpoint(env, replaced, plan(env, settings, deployment))
    name = claim_names(env, settings, deployment, False, replaced, deployment.layout())
    with Registration(settings.kafka, settings.transaction_timeout_ms()) as registration:
        bits_by = 0 if registration.recorded is None else registration.recorded.bits_by
        deployment = registration.claim(msgspec.structs.replace(deployment, bits_by=bits_by), False)
        set_deployment_parameter(env, name, deployment)
        mark_submission(settings)
        assemble(env, settings, deployment)

        def complete(savepoint: str) -> None:
            if not is_examined:
                check_snapshot(savepoint, plan(env, settings, deployment))
            registration.record(deployment)

        replace_job(env, settings.job.name, replaced, orders, complete)


def assemble(
    env: StreamExecutionEnvironment, settings: Settings, deployment: Deployment, is_silent: bool = False
) -> None:
    """Wire the job of a submission that was admitted."""
    if deployment.mode == "thread":
        relax_bundle_timer(env)
    print(describe_buckets(settings.job.buckets, env.get_parallelism()), flush=True)
    wire(env, settings, deployment, is_silent)


def wire(env: StreamExecutionEnvironment, settings: Settings, deployment: Deployment, is_silent: bool = False) -> None:
    """Add the whole job to `env`, from its source to its sinks. `is_silent`: see :func:`build`."""
    settings = on_side(settings, deployment.side)
    raw = snapshot_guard(
        raw_records(env, settings),
        encode_pins(deployment.pins()),
        settings.privacy.snapshots_kept_ms,
        settings.transaction_timeout_ms(),
    )
    keys = bucket_keys(settings.job.buckets, settings.job.max_parallelism)
    sink(build(Streams(raw), settings, deployment, keys, is_silent), settings, deployment.side)


def plan(env: StreamExecutionEnvironment, settings: Settings, deployment: Deployment) -> JobPlan:
    """What this job expects of a snapshot: the sinks of whichever job wrote it, on its side."""
    recorded = newest_readable(settings.kafka).deployment
    if recorded is not None:
        deployment = msgspec.structs.replace(deployment, side=recorded.side)
    return job_plan(env, settings, deployment.pins(), functools.partial(wire, env, settings, deployment))


def examine(env: StreamExecutionEnvironment, settings: Settings) -> StateReport:
    """Whether this job may start from the snapshot that was given by `-s`. Starts, stops and records nothing.

    Raises :class:`SnapshotUnreadable`, and :class:`SettingsError` if none was given or Kafka does not answer: its
    topics' ids are compared, too.
    """
    path = snapshot_path(env)
    if path is None:
        raise SettingsError("no snapshot was given: name it by -s")
    operators_jar()
    ring = load_key_ring(settings.privacy.key_ring)
    deployment = deployment_of(settings, ring, execution_mode(env), check_topics(settings))
    return report_on(path, plan(env, settings, deployment))


def admit(env: StreamExecutionEnvironment, settings: Settings, replace: bool, beside: str | None = None) -> Deployment:
    """Make the checks that need Redis and Kafka, and record the submission. May be repeated."""
    check_redis(settings.redis)
    deployment = register(env, settings, replace, beside)
    kafka = on_side(settings, deployment.side).kafka
    begins_anew = snapshot_path(env) is None or beside is not None
    if begins_anew and (ended := end_transactions_left_open(kafka)):
        print(f"ended {len(ended)} transactions that an earlier job had left open", flush=True)
    if beside is None:
        mark_submission(settings)
    return deployment


def register(
    env: StreamExecutionEnvironment, settings: Settings, replace: bool, beside: str | None = None
) -> Deployment:
    """Compare this submission with topics, snapshot, running jobs and the last submission; record and return it.

    If it is to take over from the running job `beside`, it is recorded as that.
    """
    deployment = expected(env, settings)
    if (path := snapshot_path(env)) is not None:
        check_snapshot(path, plan(env, settings, deployment))
    name = claim_names(env, settings, deployment, replace, beside)
    with Registration(settings.kafka, settings.transaction_timeout_ms()) as registration:
        recorded = None if replace else registration.recorded
        bits_by = users_bits_by(env) or (0 if recorded is None else recorded.bits_by)
        deployment = msgspec.structs.replace(deployment, bits_by=bits_by)
        if beside is not None:
            taken = registration.reserve(deployment)
            claim_group(on_side(settings, taken.side).kafka)
        else:
            taken = registration.take(deployment, replace)
    set_deployment_parameter(env, name, taken)
    return taken


def expected(env: StreamExecutionEnvironment, settings: Settings) -> Deployment:
    """The deployment that these settings describe, without an epoch. Raises :class:`SettingsError`."""
    operators_jar()
    topic_ids = check_topics(settings)  # first: if Kafka is away, nothing else is to blame
    check_codecs()
    claim_group(settings.kafka)
    ring = load_key_ring(settings.privacy.key_ring)
    deployment = deployment_of(settings, ring, execution_mode(env), topic_ids, trail_id(settings.kafka))
    state_backend(env)
    return deployment


def claim_names(
    env: StreamExecutionEnvironment,
    settings: Settings,
    deployment: Deployment,
    replace: bool,
    running: str | None,
    layout: Mapping[str, str] | None = None,
) -> str:
    """Check that no job but `running`, with this `layout`, is of this deployment, and claim the prefix in Redis.

    Returns the name of the deployment.
    """
    name = deployment.topic_ids.get(topics.CONSENTS, settings.kafka.topic_prefix)
    expect_not_running(env, name, running, layout)
    claim_prefix(settings.redis, name, replace)
    return name


def sink(outputs: Outputs, settings: Settings, side: str = "") -> None:
    """Write the outputs to their topics. `side` is that of the deployment."""
    sink_to_topic(outputs.rejects, topics.DEAD_LETTERS, settings, side)
    if settings.events.publish:
        clean_events = split_lines(outputs.clean_events, "clean-events")
        sink_to_topic(clean_events, topics.EVENTS, settings, side)
    audit = split_lines(outputs.audit, "audit-records")
    sink_to_topic(audit, topics.AUDIT, settings, side)
    sink_to_topic(outputs.audit_heads, topics.AUDIT_HEADS, settings, side)
    sink_to_topic(outputs.receipts, topics.RECEIPTS, settings, side)
    sink_to_topic(outputs.commands, topics.CONTROL, settings, side)
    sink_to_topic(outputs.metrics, topics.METRICS, settings, side)
    sink_to_topic(outputs.answers, topics.ANSWERS, settings, side)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FreshetError as error:
        sys.exit(f"not submitted: {error}")
