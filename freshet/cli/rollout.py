"""`freshet model push`, `list`, `load`, `activate`, `canary`, `arms`, `rollback`, `status`: roll out models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freshet.cli.model import app
from freshet.cli.shape import AsJson, SettingsFile, command, print_json, say

if TYPE_CHECKING:
    from schemas.control import ModelAction
    from schemas.receipts import ModelReceipt

VersionName = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="NAME/SHA256; the first digits or NAME alone will do if they name one. Also: default, the model of the "
        "job's settings; online, the one that learns; or models:/NAME@ALIAS in MLflow, which is published first.",
    ),
]


@command(app, "push", "freshet model push model --settings freshet.toml")
def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The folder that `train` or `adopt` has written, or a URI of MLflow: models:/NAME@ALIAS.",
        ),
    ],
    settings: SettingsFile,
    licence: Annotated[str, typer.Option(metavar="NAME", help="The licence of the model, for its manifest.")] = "",
) -> None:
    """Publish a model as a version, from which it can be rolled out.

    Opens it as a worker does, and copies it into the registry (model.versions in the job's settings). Prints the
    version: the name in the manifest, and the SHA-256 of its graph. A version never changes.
    """
    from jobs.model_versions import push as add
    from jobs.settings import load_settings

    version, added = add(load_settings(settings), model, licence)
    print(version)
    if not added:
        say("it was there already")


@command(app, "list", "freshet model list --settings freshet.toml")
def versions(settings: SettingsFile, as_json: AsJson = False) -> None:
    """List the versions in the registry, the newest training data first."""
    from jobs.model_versions import listed, summary
    from jobs.settings import load_settings

    found = listed(load_settings(settings))
    if as_json:
        print_json(
            [{"version": str(one.version), "manifest": one.manifest, "complaint": one.complaint} for one in found]
        )
    else:
        print("\n".join(map(summary, found)) or "no versions: add one with `freshet model push`")


@command(app, "load", "freshet model load mine-1 --settings freshet.toml")
def load(version: VersionName, settings: SettingsFile, as_json: AsJson = False) -> None:
    """Have every bucket of the running job load a version and try it, without using it.

    The job goes on meanwhile. A model that is damaged, or fails when it is tried, is refused.
    """
    _carry_out(settings, "load", version, as_json)


@command(app, "activate", "freshet model activate mine-1 --settings freshet.toml")
def activate(version: VersionName, settings: SettingsFile, as_json: AsJson = False) -> None:
    """Make all lists with a version from now on, once every bucket has loaded it. Ends an experiment.

    The version before stays loaded: `freshet model rollback` returns to it at once. Lists that exist are replaced at
    their users' next event, or refresh.
    """
    _carry_out(settings, "activate", version, as_json)


@command(app, "canary", "freshet model canary mine-1 --percent 5 --settings freshet.toml")
def canary(
    version: VersionName,
    settings: SettingsFile,
    percent: Annotated[float, typer.Option(min=0, max=100, help="Of the users; 0 ends the canary.")],
    as_json: AsJson = False,
) -> None:
    """Make the lists of a share of the users with a version; the others keep the active one.

    Users stay in the canary while its share grows. Continue with `activate` or `rollback`.
    """
    from jobs.model_commands import CANARY, checked_arm, experiment_of

    version = _resolved(settings, version)
    arm = checked_arm(CANARY, version, percent)
    _ask(settings, "canary", [version] if percent else [], as_json, arms=(arm,), experiment=experiment_of(version))


@command(app, "arms", "freshet model arms checkout-7 --arm a=online:50 --arm b=mine-1:50 --settings freshet.toml")
def arms(
    experiment: Annotated[str, typer.Argument(help="a-z, 0-9, '_' and '-'. Decides which users are in which arm.")],
    settings: SettingsFile,
    arm: Annotated[
        list[str], typer.Option(metavar="NAME=VERSION:PERCENT", help="Repeat it; up to 4. The rest are in no arm.")
    ],
    as_json: AsJson = False,
) -> None:
    """Divide users among versions for an A/B test; lists, receipts and answers name the arm.

    A user stays in the same arm while the experiment and its shares last. Another experiment divides users anew.
    """
    from jobs.model_commands import arm_in, checked_arm

    parsed = [arm_in(text) for text in arm]
    divided = [checked_arm(name, _resolved(settings, version), percentage) for name, version, percentage in parsed]
    loaded = [one.version for one in divided]
    _ask(settings, "arms", loaded, as_json, arms=tuple(divided), experiment=experiment)


@command(app, "shadow", "freshet model shadow mine-1 --percent 20 --settings freshet.toml")
def shadow(
    version: VersionName,
    settings: SettingsFile,
    percent: Annotated[float, typer.Option(min=0, max=100, help="Of the users; 0 ends the shadow.")],
    as_json: AsJson = False,
) -> None:
    """Have a version rank beside the active one for a share of the users; nobody gets its lists.

    Both rank the history before each event of these users, and the job counts whose list was better for what they met
    next. A version that is certain to be worse is rolled back by itself. `status` shows what is known.
    """
    from jobs.model_commands import shadow_name, share_of

    version = _resolved(settings, version)
    fields = {"version": version, "share": share_of(percent), "experiment": shadow_name(version)}
    _ask(settings, "shadow", [version] if percent else [], as_json, **fields)


@command(app, "rollback", "freshet model rollback --settings freshet.toml")
def rollback(settings: SettingsFile, as_json: AsJson = False) -> None:
    """End the canary or experiment; if there is none, return to the version that was active before, at once."""
    _ask(settings, "rollback", [], as_json)


@command(app, "status", "freshet model status --settings freshet.toml")
def status(settings: SettingsFile, as_json: AsJson = False) -> None:
    """Print what each bucket of the running job serves, whether they agree, and what is known of trials."""
    from jobs.settings import load_settings
    from jobs.trials import described_trials, trials

    _ask(settings, "status", [], as_json)
    if not as_json and (found := trials(load_settings(settings).kafka)):
        print("\n".join(described_trials(found)))


@command(app, "trials", "freshet model trials --settings freshet.toml")
def trials_of(settings: SettingsFile, as_json: AsJson = False) -> None:
    """Print what is known of shadows, canaries and arms: how many lists both models ranked, and how their gains differ.

    The gain is the nDCG@10 for what users met next. The interval holds at every moment, however often one looks.
    """
    from jobs.settings import load_settings
    from jobs.trials import described_trials, trials

    found = trials(load_settings(settings).kafka)
    if as_json:
        print_json(found)
    else:
        print("\n".join(described_trials(found)) or "no trials")


def _carry_out(settings: Path, action: "ModelAction", version: str, as_json: bool) -> None:
    version = _resolved(settings, version)
    _ask(settings, action, [version] if action != "load" else [], as_json, version=version)


def _resolved(settings: Path, version: str) -> str:
    from jobs.model_versions import resolved
    from jobs.settings import load_settings

    return resolved(load_settings(settings), version)


def _ask(settings: Path, action: "ModelAction", versions: list[str], as_json: bool, **fields: object) -> None:
    from jobs.model_commands import Rollout
    from jobs.settings import load_settings

    with Rollout(load_settings(settings)) as rollout:
        _print(rollout.carry_out(action, versions, **fields), as_json)


def _print(answers: "list[ModelReceipt]", as_json: bool) -> None:
    from jobs.model_commands import agreement, described

    if as_json:
        print_json(answers)
    else:
        print("\n".join(described(agreement(answers))))
