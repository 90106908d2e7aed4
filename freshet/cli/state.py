"""`freshet state`: what this code can do with the state in a savepoint."""

from typing import TYPE_CHECKING, Annotated

import typer

from freshet.cli.shape import AsJson, ExitCode, SettingsFile, command, group, print_json, say
from freshet.cli.submit import FlinkUrl

if TYPE_CHECKING:
    from jobs.state_report import StateReport

app = group("state", "The state in savepoints and checkpoints.")


@command(app, "check", "freshet state check --settings freshet.toml --flink http://localhost:8081 --from s3://state/s")
def check(
    settings: SettingsFile,
    snapshot: Annotated[str, typer.Option("--from", metavar="PATH", help="The savepoint or checkpoint.")],
    flink: FlinkUrl = None,
    as_json: AsJson = False,
) -> int:
    """Say whether this checkout's code and settings may start from a savepoint, and why not.

    Prints `compatible`, `needs backfill` or `refused`, and each reason; the exit codes are 0, 3 and 1, and 2 if the
    savepoint could not be examined. Reads the savepoint in Flink's client, as a submission does; starts, stops and
    records nothing.
    """
    from deploy.submission import Submission, report_on_state
    from jobs.state_report import Verdict

    report = report_on_state(settings, Submission(flink, snapshot), say)
    if as_json:
        print_json(report)
    else:
        _print(report)
    codes = {Verdict.COMPATIBLE: ExitCode.DONE, Verdict.NEEDS_BACKFILL: ExitCode.NEEDS_BACKFILL}
    return codes.get(report.verdict, ExitCode.FINDINGS)


def _print(report: "StateReport") -> None:
    print(report.verdict)
    for finding in report.findings:
        print(f"  {finding.verdict}: {finding.why}")
    for remark in report.remarks:
        print(f"  {remark}")
