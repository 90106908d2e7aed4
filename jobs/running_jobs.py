"""Checks whether the submitted deployment is already running: a second job would write everything twice.

A job carries its deployment in Flink's global job parameters, which the REST interface shows. Only the cluster that
receives the submission is checked.
"""

import sys
from collections.abc import Mapping
from typing import Final

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from adapters.flink.rest import FlinkRest
from jobs.deployment import Deployment, decode_pins, encode_pins
from schemas.errors import RestError, SettingsError

PARAMETER: Final = "freshet.deployment"
EPOCH: Final = "freshet.epoch"
"""The parameter with the epoch of the job's submission, which tells the two jobs of a take-over apart."""
LAYOUT_PARAMETER: Final = "freshet.layout"
"""The parameter that says how the job's state is laid out."""
ENDED: Final = frozenset({"FAILED", "CANCELED", "FINISHED"})


def set_deployment_parameter(env: StreamExecutionEnvironment, name: str, deployment: Deployment) -> None:
    """Store the name of the deployment, its epoch and its layout in the parameters of the job that `env` builds."""
    parameters = {PARAMETER: name, EPOCH: str(deployment.epoch), LAYOUT_PARAMETER: encode_pins(deployment.layout())}
    env.get_config().set_global_job_parameters(parameters)


def jobs_by_epoch(rest: FlinkRest, job_name: str) -> dict[int, str]:
    """The ids of the running jobs of this name by epoch; 0 for that of a release that did not store it."""
    jobs = [job["jid"] for job in rest.overview() if job["name"] == job_name and job["state"] not in ENDED]
    found = {job: rest.get(f"/jobs/{job}/config").get("execution-config", {}).get("user-config", {}) for job in jobs}
    return {int(parameters.get(EPOCH, 0)): job for job, parameters in found.items()}


def expect_not_running(
    env: StreamExecutionEnvironment,
    deployment: str,
    replaced: str | None = None,
    layout: Mapping[str, str] | None = None,
) -> None:
    """Raise :class:`SettingsError` if the cluster already runs a job of this deployment.

    The job `replaced` may run, but must belong to this deployment: another deployment's state cannot be restored. With
    `layout`, that of the submission, the job must have the same.
    """
    address = rest_address(env)
    if address is None:
        return
    try:
        rest = FlinkRest(address)
        jobs = [job for job in rest.overview() if job["state"] not in ENDED]
        names = {job["jid"]: rest.get(f"/jobs/{job['jid']}/config") for job in jobs}
    except RestError as error:
        print(f"not checked whether a job of this deployment runs already: {error}", file=sys.stderr)
        return
    for job in jobs:
        parameters = names[job["jid"]].get("execution-config", {}).get("user-config", {})
        owner = parameters.get(PARAMETER, deployment)  # jobs of early releases have no such parameter
        if replaced is not None and job["jid"] == replaced:
            if owner != deployment:
                raise SettingsError(
                    f"job {replaced} belongs to another deployment, whose topic `consents` has the id {owner}: give "
                    "the settings that it was submitted with"
                )
            held = decode_pins(parameters.get(LAYOUT_PARAMETER, ""))
            if complaint := complaint_about_layout(replaced, held, layout or {}):
                raise SettingsError(complaint)
        elif parameters.get(PARAMETER) == deployment:
            raise SettingsError(
                f"job {job['jid']} ({job['state']}) belongs to this deployment: replace it with `freshet upgrade "
                f"--settings … --flink {address}`, which stops it with a savepoint and continues from that"
            )


def complaint_about_layout(job: str, running: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Explain why a submission with the layout `now` cannot continue from a savepoint of `job`; None if it can."""
    for name in sorted(running.keys() & now.keys()):
        if running[name] != now[name]:
            return (
                f"job {job} runs with {name} {running[name]}, and this submission has {now[name]}: it could not start "
                f"from the savepoint of that job. Put {running[name]} back; `freshet rebucket` changes job.buckets of "
                "a stopped job, `freshet take-over --from-start` all of these"
            )
    return None


def rest_address(env: StreamExecutionEnvironment) -> str | None:
    """The cluster's REST address in the client's configuration; None if it has none."""
    configuration = env._j_stream_execution_environment.getConfiguration()
    options = get_gateway().jvm.org.apache.flink.configuration
    if not configuration.contains(options.RestOptions.ADDRESS):
        return None
    scheme = "https" if configuration.get(options.SecurityOptions.SSL_REST_ENABLED) else "http"
    return f"{scheme}://{configuration.get(options.RestOptions.ADDRESS)}:{configuration.get(options.RestOptions.PORT)}"
