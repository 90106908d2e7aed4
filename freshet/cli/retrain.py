"""`freshet model retrain`: train again, and propose the model as a shadow."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.file_options import TrainingFile, with_training_options
from freshet.cli.model import File, Folder, app
from freshet.cli.shape import SettingsFile, command, say


@command(app, "retrain", "freshet model retrain may-export --out model --settings freshet.toml --watch")
@with_training_options
def retrain(
    file: File,
    out: Folder,
    settings: SettingsFile,
    of_file: TrainingFile,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait for drift, and retrain then; ends with Ctrl-C. Otherwise once, now.")
    ] = False,
    percent: Annotated[
        float, typer.Option(min=0.01, max=100, help="Of the users: in the shadow, and the canary.")
    ] = 20,
    every_hours: Annotated[int, typer.Option(min=1, max=8760, help="Retrain at most once in so many hours.")] = 24,
) -> None:
    """Train the built-in model again, push it, and have it rank in shadow; if it is better, it becomes a canary.

    Reads the file anew each time: have `freshet export` renew it. With `--watch`, two alarms of drift within six hours
    retrain; then none do until there was an hour without an alarm. Nothing is activated by itself.
    """
    from jobs.retraining import Retrainer, RetrainRules, RetrainTrigger, rollout_of, trained_at
    from jobs.retraining import watch as follow
    from jobs.settings import load_settings

    loaded = load_settings(settings)
    rules = RetrainRules(every_ms=every_hours * 3_600_000)
    trigger = RetrainTrigger(rules, trained_at(out) if watch else 0)
    retrainer = Retrainer(trigger, lambda: _trained(file, out, settings, of_file), rollout_of(loaded), percent, say)
    if not watch:
        retrainer.propose()
    else:
        follow(loaded, retrainer)


def _trained(file: str, out: Path, settings: Path, of_file: TrainingFile) -> str:
    from evaluation.train import interactions_in, train_and_export
    from jobs.model_versions import push
    from jobs.settings import load_settings
    from models.transitions import TrainingSettings

    interactions = interactions_in(file, of_file.columns(), of_file.user, say)
    train_and_export(interactions, out, TrainingSettings(), say)
    return str(push(load_settings(settings), str(out))[0])
