"""Reads, on the client, the snapshot that a job is submitted with, and checks it before anything starts."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from py4j.protocol import Py4JError, Py4JJavaError
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from jobs.clock import clock_ms
from jobs.deployment import BITS_BY, decode_pins
from jobs.state_report import HeldOperator, JobPlan, Snapshot, StateReport, complaint_about_age, judge
from schemas.errors import FreshetError, SettingsError

IDENTITY_STATE: Final = "deployment-v1"
"""The name of the state in `jobs/java/freshet/SnapshotGuard.java`."""
WRITERS: Final = {"KeyGroupsStateHandle": "hashmap", "IncrementalRemoteKeyedStateHandle": "rocksdb"}
"""The Java classes of keyed state in a format of its own → the backend that reads it. Canonical state has another."""
PROCESS_MODE_PREFIX: Final = "python-state-"
"""What Flink puts before the name of a state of a worker process."""


class SnapshotUnreadable(FreshetError):  # noqa: N818 - the cluster may be able to read it
    """A snapshot that is missing, damaged, or on a file system that this process has no access to."""


class SnapshotDamaged(SettingsError, SnapshotUnreadable):  # noqa: N818 - as above
    """A snapshot of which files are missing or too short: no cluster can read it."""


def report_on(path: str, plan: JobPlan) -> StateReport:
    """Whether the job of `plan` may start from the snapshot at `path`. Raises :class:`SnapshotUnreadable`."""
    return judge(read_snapshot(path), plan, clock_ms())


def check_snapshot(path: str, plan: JobPlan) -> None:
    """Raise :class:`SettingsError` if the job of `plan` must not start from the snapshot at `path`.

    What this client cannot read, the job compares when it restores it, and Flink reports if it is missing; so it is
    no error here, and a line on stderr says so.
    """
    try:
        report = report_on(path, plan)
    except SnapshotDamaged:
        raise
    except SnapshotUnreadable as error:
        print(f"{error}; the job checks its identity and its age when it restores it", file=sys.stderr, flush=True)
        return
    if report.findings:
        raise SettingsError(report.findings[0].why)


def check_files(path: str, subtasks: Iterable[Any]) -> None:
    """Raise :class:`SnapshotDamaged` if a file that holds state is missing, or shorter than the metadata says."""
    fs, seen = get_gateway().jvm.org.apache.flink.core.fs, set()
    for handle in (file for subtask in subtasks for file in _files(subtask)):
        place = handle.getFilePath()
        if (name := str(place.toString())) in seen:
            continue
        seen.add(name)
        wanted = int(handle.getStateSize())
        try:
            found = int(fs.FileSystem.get(place.toUri()).getFileStatus(place).getLen())
        except Py4JJavaError as error:
            why = f"{name} cannot be read ({_reason(error)})"
        else:
            if found >= wanted:
                continue
            why = f"{name} has {found} bytes of {wanted}"
        raise SnapshotDamaged(
            f"the snapshot at {path} is damaged or was not copied whole: {why}. Use another savepoint, or a checkpoint "
            "that Flink retained"
        )


def _files(subtask: Any) -> Iterator[Any]:
    """The (Java) handles of the files that hold the state of a subtask, but for those that several share parts of."""
    listed = get_gateway().jvm.java.util.ArrayList
    waiting = [
        handle
        for handles in (subtask.getManagedKeyedState(), subtask.getManagedOperatorState())
        for handle in listed(handles)
    ]
    while waiting:
        handle = waiting.pop()
        kind = str(handle.getClass().getSimpleName())
        if kind == "IncrementalRemoteKeyedStateHandle":
            waiting.append(handle.getMetaDataStateHandle())
            waiting += [
                one.getHandle()
                for shared in (handle.getSharedState(), handle.getPrivateState())
                for one in listed(shared)
            ]
        elif kind in ("OperatorStreamStateHandle", "KeyGroupsStateHandle", "KeyGroupsSavepointStateHandle"):
            waiting.append(handle.getDelegateStateHandle())
        elif kind in ("FileStateHandle", "RelativeFileStateHandle"):
            yield handle


def read_snapshot(path: str) -> Snapshot:
    """Read what the snapshot at `path` says of itself, without its data. Raises :class:`SnapshotUnreadable`."""
    try:
        operators = list(get_gateway().jvm.java.util.ArrayList(load_metadata(path).getOperatorStates()))
        subtasks = [subtask for operator in operators for subtask in _subtasks_of(operator)]
        check_files(path, subtasks)
        return Snapshot(
            completed_at_ms(path),
            frozenset(_formats_in(subtasks)),
            tuple(_identities_in(subtasks)),
            tuple(map(_held_operator, operators)),
        )
    except Py4JError as error:
        raise SnapshotUnreadable(f"the snapshot at {path} cannot be read here ({_reason(error)})") from None


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


def _formats_in(subtasks: Iterable[Any]) -> Iterator[str]:
    for subtask in subtasks:
        for handle in _keyed_handles(subtask):
            if (name := handle.getClass().getSimpleName()) in WRITERS:
                yield WRITERS[name]


def _keyed_handles(subtask: Any) -> Iterator[Any]:
    # Py4J can only call Java collections whose classes are public.
    yield from get_gateway().jvm.java.util.ArrayList(subtask.getManagedKeyedState())


def snapshot_path(env: StreamExecutionEnvironment) -> str | None:
    """The path given by `flink run -s`; None if the job starts with empty state."""
    configuration = env._j_stream_execution_environment.getConfiguration()
    option = get_gateway().jvm.org.apache.flink.configuration.StateRecoveryOptions.SAVEPOINT_PATH
    path = configuration.get(option)
    return None if path is None else str(path)


def users_bits_by(env: StreamExecutionEnvironment) -> int:
    """The number of buckets that the bits of users in the given snapshot are derived from; 0 if it does not say."""
    path = snapshot_path(env)
    try:
        held = () if path is None else read_snapshot(path).pins
    except SnapshotUnreadable:
        return 0
    return max((int(pins[BITS_BY]) for pins in held if BITS_BY in pins), default=0)


def check_age(path: str, kept_ms: int) -> None:
    """Raise :class:`SettingsError` if the snapshot was written more than `kept_ms` ago."""
    if complaint := complaint_about_age(completed_at_ms(path), kept_ms, clock_ms()):
        raise SettingsError(complaint)


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


def _identities_in(subtasks: Iterable[Any]) -> Iterator[dict[str, str]]:
    """The pins in the snapshot; none if an early release wrote it."""
    for subtask in subtasks:
        for handle in get_gateway().jvm.java.util.ArrayList(subtask.getManagedOperatorState()):
            yield from [decode_pins(raw.decode()) for raw in _held(handle)]


def _held_operator(operator: Any) -> HeldOperator:
    handles = [handle for subtask in _subtasks_of(operator) for handle in _keyed_handles(subtask)]
    states = {name for handle in handles for name in _names(handle)}
    operator_id = str(operator.getOperatorID())
    return HeldOperator(
        operator_id,
        str(operator.getOperatorName().orElse(operator_id)),
        operator.getParallelism(),
        bool(
            any(subtask.hasState() for subtask in _subtasks_of(operator)) or operator.getCoordinatorState() is not None
        ),
        frozenset(states),
    )


def _names(handle: Any) -> Iterator[str]:
    """The names of the keyed states in `handle`, whose description precedes its data."""
    jvm = get_gateway().jvm
    incremental = WRITERS.get(str(handle.getClass().getSimpleName())) == "rocksdb"
    described = handle.getMetaDataStateHandle() if incremental else handle
    stream = described.openInputStream()
    try:
        proxy = jvm.org.apache.flink.runtime.state.KeyedBackendSerializationProxy(_loader())
        proxy.read(jvm.org.apache.flink.core.memory.DataInputViewStreamWrapper(stream))
        for state in jvm.java.util.ArrayList(proxy.getStateMetaInfoSnapshots()):
            if str(state.getBackendStateType()) == "KEY_VALUE":
                yield str(state.getName()).removeprefix(PROCESS_MODE_PREFIX)
    finally:
        stream.close()


def _reason(error: Py4JError) -> str:
    """The class and the message of the Java exception, without its stack."""
    exception = getattr(error, "java_exception", None)
    return str(error).splitlines()[0] if exception is None else str(exception.toString())[:300]


def _loader() -> Any:
    return get_gateway().jvm.Thread.currentThread().getContextClassLoader()


def load_metadata(path: str) -> Any:
    """The (Java) metadata of the snapshot at `path`. Raises Py4J's errors if it cannot be read."""
    jvm = get_gateway().jvm
    runtime = jvm.org.apache.flink.runtime
    location = runtime.state.filesystem.AbstractFsCheckpointStorageAccess.resolveCheckpointPointer(path)
    stream = jvm.java.io.DataInputStream(location.getMetadataHandle().openInputStream())
    try:
        return runtime.checkpoint.Checkpoints.loadCheckpointMetadata(stream, _loader(), path)
    finally:
        stream.close()


def _subtasks_of(operator: Any) -> Iterator[Any]:
    """The (Java) state of each subtask of an operator that has any."""
    for number in range(operator.getParallelism()):
        if (subtask := operator.getState(number)) is not None:
            yield subtask


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
