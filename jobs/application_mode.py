"""Application mode: the JobManager runs `main()`, and again at each of its restarts.

With high availability, a JobManager that starts again first recovers the job as it was submitted, with its epoch, from
its newest checkpoint. Only then it runs `main()`, whose `execute` joins the recovered job, whatever graph it is given.
So nothing is submitted, and nothing may be recorded or refused: if `main()` exits with an error, Flink ends the job for
good, and nobody starts it again. For the same reason, a first submission waits for Kafka.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from kafka.errors import KafkaError
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from adapters.secrets.key_rings import load_key_ring
from jobs.checks import check_topics
from jobs.deployment import complaint_about_record, deployment_of
from jobs.redis_check import check_redis
from jobs.registration import last_recorded, raise_if
from jobs.settings import load_settings
from jobs.workers import check_openable
from schemas.errors import FreshetError, KafkaUnreachable, StoreUnavailable
from schemas.threads import in_background

EMBEDDED: Final = "embedded"
"""Flink's name for the execution target of application mode."""
ASK_AGAIN_S: Final = 5.0
T = TypeVar("T")


def is_application_mode(env: StreamExecutionEnvironment) -> bool:
    """Whether this process runs `main()` for a JobManager, and not for a client."""
    options = get_gateway().jvm.org.apache.flink.configuration.DeploymentOptions
    return bool(env._j_stream_execution_environment.getConfiguration().get(options.TARGET) == EMBEDDED)


def is_highly_available(env: StreamExecutionEnvironment) -> bool:
    """Whether a JobManager that starts again recovers its job."""
    mode = get_gateway().jvm.org.apache.flink.runtime.jobmanager.HighAvailabilityMode
    configuration = env._j_stream_execution_environment.getConfiguration()
    return bool(mode.isHighAvailabilityModeActivated(configuration))


def warn_without_recovery(env: StreamExecutionEnvironment) -> None:
    """Print what a restart of the JobManager means without high availability."""
    if not is_highly_available(env):
        print(
            "application mode without high-availability.type: a restart of the JobManager submits this job anew, from "
            "the savepoint that was given first, or with empty state",
            file=sys.stderr,
            flush=True,
        )


def recovered_job(env: StreamExecutionEnvironment) -> str | None:
    """The id of the job that the JobManager of this process has recovered and that `execute` will join; None if it has
    not.

    Flink tells nobody. This looks where its own decision does: for the fixed id of the job among those that were there
    before `main()` (`EmbeddedExecutor.execute`).
    """
    if not is_application_mode(env):
        return None
    options = get_gateway().jvm.org.apache.flink.configuration.PipelineOptionsInternal
    job = env._j_stream_execution_environment.getConfiguration().get(options.PIPELINE_FIXED_JOB_ID)
    known = _field(_field(env._j_stream_execution_environment, "executorServiceLoader"), "submittedJobIds")
    return str(job) if job is not None and str(job) in {str(each) for each in known} else None


def _field(instance: Any, name: str) -> Any:
    """The value of a private field of a Java object."""
    kind = instance.getClass()
    while name not in {field.getName() for field in kind.getDeclaredFields()}:
        kind = kind.getSuperclass()
    field = kind.getDeclaredField(name)
    field.setAccessible(True)
    return field.get(instance)


def rejoin(env: StreamExecutionEnvironment, job: str, path: Path) -> None:
    """Join the job that this JobManager has recovered, and print what is wrong by now without ending the job.

    The job has its settings, epoch and trail from its submission. What it must not restore, `snapshot_guard` refuses.
    """
    print(f"job {job} was recovered as it was submitted: nothing is submitted", flush=True)
    in_background("freshet-checks", _report_differences, path)
    env.from_collection([0]).map(_never_runs).print()
    env.execute(f"joins {job}")


def _report_differences(path: Path) -> None:
    """Print why a submission would be refused now, if it would."""
    try:
        settings = load_settings(path)
        check_openable(settings)
        check_redis(settings.redis)
        topic_ids = check_topics(settings)
        recorded = last_recorded(settings.kafka)
        if recorded is not None:
            ring = load_key_ring(settings.privacy.key_ring)
            raise_if(complaint_about_record(recorded, deployment_of(settings, ring, recorded.mode, topic_ids)))
    except FreshetError as error:
        print(f"the recovered job goes on, and a submission would be refused now: {error}", file=sys.stderr, flush=True)


def _never_runs(value: Any) -> Any:
    """The only step of a graph that is given to `execute` to join another job."""
    raise RuntimeError("this graph only joins a recovered job, and must never run")


def patiently(attempt: Callable[[], T], pause_s: float = ASK_AGAIN_S) -> T:
    """What `attempt` returns. Repeats it as long as it fails because Kafka or Redis is away, and prints why.

    There is no limit: to exit would end the job for good, and waiting is what an orchestrator does for a pod, too.
    """
    while True:
        try:
            return attempt()
        except (FreshetError, KafkaError) as error:
            if not is_transient(error):
                raise
            print(f"not submitted yet, trying again in {pause_s:g} s: {error}", file=sys.stderr, flush=True)
        time.sleep(pause_s)


def is_transient(error: BaseException) -> bool:
    """Whether waiting may help: a server is away, or Kafka's client says so of the error behind this one.

    >>> is_transient(KafkaUnreachable("away")), is_transient(FreshetError("no such topic"))
    (True, False)
    """
    cause = error if isinstance(error, KafkaError) else error.__context__
    if isinstance(cause, KafkaError):
        return bool(cause.retriable)  # not so a wrong password
    return isinstance(error, KafkaUnreachable | StoreUnavailable)
