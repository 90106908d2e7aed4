"""`freshet topics`: the topics of a deployment."""

from typing import Annotated

import typer

from freshet.cli.shape import AsJson, SettingsFile, command, print_json, root


@command(root, "topics", "freshet topics --settings freshet.toml --partitions 12 --replicas 3")
def topics(
    settings: SettingsFile,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the topics that are read in parallel.")] = 4,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas of each topic.")] = 3,
    alter: Annotated[bool, typer.Option("--alter", help="Also correct the settings of existing topics.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create missing topics, with the promised retention.

    Existing topics are left unchanged unless --alter is given. At submission, the job refuses topics that break its
    promises.
    """
    from jobs.settings import load_settings
    from jobs.topic_creation import alter_topics, create_topics

    loaded = load_settings(settings)
    kept_ms = loaded.privacy.snapshots_kept_ms
    created = create_topics(loaded.kafka, partitions, replicas, kept_ms)
    altered = alter_topics(loaded.kafka, kept_ms) if alter else {}
    if as_json:
        print_json({"created": created, "altered": altered})
        return
    lines = [f"created {name}" for name in created]
    lines += [f"set {name}={value} in {topic}" for topic, changes in altered.items() for name, value in changes.items()]
    print("\n".join(lines) or "all topics exist")
