"""`freshet flink-conf`: Flink's configuration for a deployment."""

from enum import StrEnum
from typing import Annotated, Final

import typer

from freshet.cli.shape import command, root, say


class StateName(StrEnum):
    """The profiles of :mod:`deploy.flink_profiles`, which is not imported for help; a test compares the two."""

    HEAP = "heap"
    ROCKSDB = "rocksdb"


STATE_OPTION: Final = typer.Option(
    "--state", help="Where the job keeps its state: on the heap, or in RocksDB, for more than 25,000 users a bucket."
)


@command(root, "flink-conf", "freshet flink-conf --state rocksdb --users 5000000 --task-managers 4")
def flink_conf(
    state: Annotated[StateName, STATE_OPTION] = StateName.HEAP,
    users: Annotated[int, typer.Option(min=0, max=10**10, help="Users with a profile, of the whole job.")] = 100_000,
    items: Annotated[int, typer.Option(min=0, max=10**8, help="Items that the online model learns.")] = 10_000,
    task_managers: Annotated[int, typer.Option(min=1, max=10_000, help="TaskManagers, with one slot each.")] = 1,
) -> None:
    """Print Flink's config.yaml: flink-conf.yaml with the profile and the memory that these numbers need.

    `taskmanager.memory.process.size` and `jobmanager.memory.process.size` hold the whole processes, Python included:
    they are the memory limits of the containers.
    """
    from deploy.flink_profiles import Demand, State, config_yaml, size_of

    demand = Demand(State(state.value), users, items, task_managers)
    size = size_of(demand)
    print(config_yaml(demand), end="")
    say(
        f"each TaskManager: {size.process_mb:,} MB, of which {size.heap_mb:,} MB Java's heap for the job, "
        f"{size.python_mb:,} MB Python, {size.managed_mb:,} MB managed memory"
    )
