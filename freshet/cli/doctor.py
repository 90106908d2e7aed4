"""`freshet doctor`: check a deployment, and say what to fix."""

from typing import Annotated

import typer

from freshet.cli.shape import AsJson, ExitCode, SettingsFile, command, print_json, root


@command(root, "doctor", "freshet doctor --settings freshet.toml --flink http://localhost:8081")
def doctor(
    settings: SettingsFile,
    flink: Annotated[str | None, typer.Option(metavar="URL", help="Flink's REST URL; also checks Flink.")] = None,
    as_json: AsJson = False,
) -> int:
    """Check a deployment, one line per check, and say how to fix each problem.

    Checks Python, packages, Java, the key ring, the signing key, the policy and the model; Redis (memory policy,
    persistence, rights), Kafka (topics, their retention and time stamps), the local clock against the broker's, and
    whether the settings are those of the last submission. Exit code 1 if there is something to fix.
    """
    from jobs.doctor import run_checks

    found = run_checks(settings, flink)
    if as_json:
        print_json([each._asdict() for each in found])
    else:
        for each in found:
            print(f"{each.verdict:<8} {each.what:<13} {each.text}")
    return ExitCode.FINDINGS if any(each.verdict == "mend" for each in found) else ExitCode.DONE
