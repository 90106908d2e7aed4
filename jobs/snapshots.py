"""Checks, on the client, the snapshot that a job is submitted with, before anything starts."""

from collections.abc import Iterator
from typing import Any, Final

from py4j.protocol import Py4JError, Py4JJavaError
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from jobs.clock import clock_ms
from jobs.deployment import BITS_BY, complaint_about_snapshot, decode_pins
from jobs.settings import Settings
from schemas.errors import SettingsError
from schemas.topics import DAY_MS

IDENTITY_STATE: Final = "deployment-v1"
"""The name of the state in `jobs/java/freshet/SnapshotGuard.java`."""
WRITERS: Final = {"KeyGroupsStateHandle": "hashmap", "IncrementalRemoteKeyedStateHandle": "rocksdb"}
"""The Java classes of keyed state in a format of its own → the backend that reads it. Canonical state has another."""


def check_snapshot(env: StreamExecutionEnvironment, settings: Settings, pins: dict[str, str]) -> None:
    """Raise :class:`SettingsError` if the job must not start from the given snapshot.

    It must not if the snapshot is older than `privacy.snapshots_kept_ms` (by the time of its `_metadata` file), was
    taken with an identity other than `pins`, or is in the format of another state backend. Flink itself reports a
    missing snapshot. What the client cannot read, the job compares when it restores it; the format it does not compare.
    """
    backend = state_backend(env)
    path = snapshot_path(env)
    if path is None:
        return
    check_age(path, settings.privacy.snapshots_kept_ms)
    for held in identities_in(path):
        if complaint := complaint_about_snapshot(held, pins):
            raise SettingsError(complaint)
    if written := formats_in(path) - {backend}:
        raise SettingsError(_complaint_about_format(min(written), backend))


def state_backend(env: StreamExecutionEnvironment) -> str:
    """The job's `state.backend.type`. Raises :class:`SettingsError` for RocksDB without incremental checkpoints.

    Each checkpoint would write all state, in a format that cannot be told from the heap's.
    """
    configuration = env._j_stream_execution_environment.getConfiguration()
    options = get_gateway().jvm.org.apache.flink.configuration
    backend = str(configuration.get(options.StateBackendOptions.STATE_BACKEND))
    if backend == "rocksdb" and not configuration.get(options.CheckpointingOptions.INCREMENTAL_CHECKPOINTS):
        raise SettingsError(
            "state.backend.type is rocksdb, and execution.checkpointing.incremental is not true: each checkpoint would "
            "write all state. Set it to true in Flink's config.yaml, as `freshet flink-conf --state rocksdb` does"
        )
    return backend


def formats_in(path: str) -> set[str]:
    """The backends that alone can read the keyed state of the snapshot at `path`.

    None for a canonical savepoint, or if it is unreadable here.
    """
    try:
        return {
            WRITERS[name]
            for subtask in _subtask_states(path)
            for handle in get_gateway().jvm.java.util.ArrayList(subtask.getManagedKeyedState())
            if (name := handle.getClass().getSimpleName()) in WRITERS
        }
    except Py4JError:
        return set()


def _complaint_about_format(written: str, backend: str) -> str:
    return (
        f"the snapshot is in the format of the state backend {written}, and this submission has state.backend.type "
        f"{backend}: only a canonical savepoint can be restored by another backend. Submit it with "
        f"-D state.backend.type={written}, stop that job with `flink stop --type canonical`, and submit that savepoint"
    )


def snapshot_path(env: StreamExecutionEnvironment) -> str | None:
    """The path given by `flink run -s`; None if the job starts with empty state."""
    configuration = env._j_stream_execution_environment.getConfiguration()
    option = get_gateway().jvm.org.apache.flink.configuration.StateRecoveryOptions.SAVEPOINT_PATH
    path = configuration.get(option)
    return None if path is None else str(path)


def users_bits_by(env: StreamExecutionEnvironment) -> int:
    """The number of buckets that the bits of users in the given snapshot are derived from; 0 if it does not say."""
    path = snapshot_path(env)
    held = [] if path is None else [int(pins[BITS_BY]) for pins in identities_in(path) if BITS_BY in pins]
    return max(held, default=0)


def check_age(path: str, kept_ms: int) -> None:
    """Raise :class:`SettingsError` if the snapshot was written more than `kept_ms` ago."""
    written_ms = completed_at_ms(path)
    if written_ms is None:
        return
    age_ms = clock_ms() - written_ms
    if age_ms > kept_ms:
        raise SettingsError(
            f"the snapshot is {age_ms / DAY_MS:.1f} days old, and privacy.snapshots_kept_ms allows "
            f"{kept_ms / DAY_MS:.1f}: withdrawals and erasures since then may no longer be readable. Submit without "
            "-s: profiles are lost, consents are read again from the topic"
        )


def completed_at_ms(path: str) -> int | None:
    """When the snapshot at `path` was completed, by the time of its metadata; None if there is none."""
    fs = get_gateway().jvm.org.apache.flink.core.fs
    for name in (path, f"{path.rstrip('/')}/_metadata"):
        try:
            status = fs.Path(name).getFileSystem().getFileStatus(fs.Path(name))
        except Py4JJavaError:
            continue
        if not status.isDir():
            return int(status.getModificationTime())
    return None


def identities_in(path: str) -> Iterator[dict[str, str]]:
    """The pins in the snapshot at `path`; none if an early release wrote it, or if it is unreadable here."""
    try:
        for subtask in _subtask_states(path):
            # Py4J can only call Java collections whose classes are public.
            for handle in get_gateway().jvm.java.util.ArrayList(subtask.getManagedOperatorState()):
                yield from [decode_pins(raw.decode()) for raw in _held(handle)]
    except Py4JError:
        return


def _subtask_states(path: str) -> Iterator[Any]:
    """The (Java) state of each subtask of each operator in the snapshot."""
    for operator in get_gateway().jvm.java.util.ArrayList(load_metadata(path).getOperatorStates()):
        for number in range(operator.getParallelism()):
            if (subtask := operator.getState(number)) is not None:
                yield subtask


def load_metadata(path: str) -> Any:
    """The (Java) metadata of the snapshot at `path`. Raises Py4J's errors if it cannot be read."""
    jvm = get_gateway().jvm
    runtime = jvm.org.apache.flink.runtime
    location = runtime.state.filesystem.AbstractFsCheckpointStorageAccess.resolveCheckpointPointer(path)
    stream = jvm.java.io.DataInputStream(location.getMetadataHandle().openInputStream())
    try:
        loader = jvm.Thread.currentThread().getContextClassLoader()
        return runtime.checkpoint.Checkpoints.loadCheckpointMetadata(stream, loader, path)
    finally:
        stream.close()


def _held(handle: Any) -> Iterator[bytes]:
    """The identity's list state in `handle`, which may hold only other states."""
    place = handle.getStateNameToPartitionOffsets().get(IDENTITY_STATE)
    if place is None:
        return
    jvm = get_gateway().jvm
    serializer = jvm.org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer.INSTANCE
    stream = handle.openInputStream()
    try:
        for offset in place.getOffsets():
            stream.seek(offset)
            yield bytes(serializer.deserialize(jvm.org.apache.flink.core.memory.DataInputViewStreamWrapper(stream)))
    finally:
        stream.close()
