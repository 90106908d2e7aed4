"""Flink's settings for a job that goes on while no checkpoint completes: Redis or the checkpoint storage is away."""

import math
from typing import Final

from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

SPARE_CHECKPOINTS: Final = 3
"""Extra failures to tolerate: the checkpoints in which an outage begins and ends, and one that was already slow."""
PROBED_STORAGE: Final = "freshet.ProbedCheckpointStorage$Factory"
"""`jobs/java/freshet/ProbedCheckpointStorage.java`."""
FILE_SYSTEM: Final = "filesystem"


def go_on_without_checkpoints(env: StreamExecutionEnvironment, outage_max_ms: int) -> None:
    """Let the job go on without a checkpoint for `outage_max_ms`, and not fill its memory meanwhile.

    With Flink's default tolerance the job would restart in the middle of an outage: to wait for Redis again, or to find
    that the checkpoint it wants to restore is away. Every interval one checkpoint fails at most; those that time out
    are fewer, and last longer.
    """
    config = env.get_checkpoint_config()
    if not config.is_checkpointing_enabled():
        return
    spacing_ms = max(config.get_checkpoint_interval(), config.get_min_pause_between_checkpoints())
    wanted = tolerable_failures(outage_max_ms, spacing_ms)
    config.set_tolerable_checkpoint_failure_number(max(wanted, config.get_tolerable_checkpoint_failure_number()))
    probe_storage(env)


def tolerable_failures(outage_max_ms: int, spacing_ms: int) -> int:
    """How many checkpoints in a row can fail during an outage, plus :data:`SPARE_CHECKPOINTS`.

    >>> tolerable_failures(3_600_000, 5_000)
    723
    """
    return math.ceil(outage_max_ms / spacing_ms) + SPARE_CHECKPOINTS


def probe_storage(env: StreamExecutionEnvironment) -> None:
    """After a failed checkpoint, have the JobManager write to the storage before it begins the next one.

    Leaves alone a storage other than a file system or object store.
    """
    options = get_gateway().jvm.org.apache.flink.configuration.CheckpointingOptions
    configured = env._j_stream_execution_environment.getConfiguration()
    storage, directory = configured.get(options.CHECKPOINT_STORAGE), configured.get(options.CHECKPOINTS_DIRECTORY)
    if directory is not None and storage in (None, FILE_SYSTEM):
        probed = Configuration()
        probed.set_string("execution.checkpointing.storage", PROBED_STORAGE)
        env.configure(probed)
