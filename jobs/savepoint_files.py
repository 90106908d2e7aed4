"""Reads a canonical savepoint, and writes one with other keyed state, through Flink's own classes in a local JVM.

No job and no cluster is needed: files are opened by Flink's file systems, metadata and the list of states are read and
written by Flink, and the entries between them by :mod:`jobs.savepoint_format`. State processor jobs would need the
types of every state in Java, and a jar more.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from py4j.protocol import Py4JError, Py4JJavaError
from pyflink.java_gateway import get_gateway

from jobs.locations import path_of
from jobs.savepoint_format import ByteReader, Entry, KeyGroupWriter, entries
from jobs.snapshots import load_metadata
from schemas.errors import SettingsError

METADATA: Final = "_metadata"
OUT_BYTES: Final = 1 << 20
"""How much of a file is buffered before it crosses to Java."""
CANONICAL: Final = "KeyGroupsSavepointStateHandle"
_TIMERS: Final = "_timer_state/processing"
_WRAPPERS: Final = ("OperatorStreamStateHandle", "KeyGroupsStateHandle", CANONICAL)


@functools.cache
def open_file_systems() -> None:
    """Let Flink open files as its client would: with its settings (FLINK_CONF_DIR) and plugins (FLINK_PLUGINS_DIR)."""
    flink = get_gateway().jvm.org.apache.flink
    configuration = flink.configuration.GlobalConfiguration.loadConfiguration()
    plugins = flink.core.plugin.PluginUtils.createPluginManagerFromRootFolder(configuration)
    flink.core.fs.FileSystem.initialize(configuration, plugins)


class StateNames(NamedTuple):
    """The states of an operator by name; `timers` is that of processing-time timers. Values are numbers of entries."""

    numbers: dict[str, int]

    def of(self, name: str) -> int:
        """The number of a state. Raises :class:`SettingsError` if the savepoint has none of this name."""
        if name not in self.numbers:
            raise SettingsError(
                f"the savepoint has no state {name}: submit it once with this release, stop that job with "
                "`flink stop --type canonical`, and take that savepoint"
            )
        return self.numbers[name]


class SavepointFolder:
    """A savepoint at `path`, as Flink's client reads it. Raises :class:`SettingsError` if there is none."""

    def __init__(self, path: str) -> None:
        self._jvm = get_gateway().jvm
        self.path = path
        try:
            self.metadata = load_metadata(path)
        except Py4JJavaError as error:
            raise SettingsError(f"no savepoint can be read at {path}: {_first_line(error)}") from None

    def operator(self, uid: str) -> Any:
        """The (Java) state of the operator `uid`; None if the savepoint has none."""
        for operator in self.operators():
            known = operator.getOperatorUid()
            if known.isPresent() and known.get() == uid:
                return operator
        return None

    def replace(self, operator: Any) -> None:
        """Put `operator` in the place of the one with its id."""
        kept = self._jvm.java.util.ArrayList()
        for known in self.operators():
            kept.add(operator if known.getOperatorID().equals(operator.getOperatorID()) else known)
        before = self.metadata
        self.metadata = self._jvm.org.apache.flink.runtime.checkpoint.metadata.CheckpointMetadata(
            before.getCheckpointId(), kept, before.getMasterStates(), before.getCheckpointProperties()
        )

    def was_stopped_with(self) -> bool:
        """Whether taking it stopped the job."""
        properties = self.metadata.getCheckpointProperties()
        return properties is not None and bool(properties.isSavepoint() and properties.isSynchronous())

    def operators(self) -> list[Any]:
        """The (Java) state of every operator."""
        return list(self._jvm.java.util.ArrayList(self.metadata.getOperatorStates()))


def _first_line(error: Py4JJavaError) -> str:
    return str(error.java_exception.getMessage() or error.java_exception.getClass().getSimpleName()).splitlines()[0]


class KeyedSource:
    """The keyed state of an operator, whose handles may list their states in different orders.

    In process mode a state is only listed once it was used.
    """

    def __init__(self, operator: Any) -> None:
        self._jvm = get_gateway().jvm
        self.max_parallelism = int(operator.getMaxParallelism())
        self._handles = [
            handle
            for subtask in self._jvm.java.util.ArrayList(operator.getStates())
            for handle in self._jvm.java.util.ArrayList(subtask.getManagedKeyedState())
        ]
        for handle in self._handles:
            if (kind := handle.getClass().getSimpleName()) != CANONICAL:
                raise SettingsError(
                    f"this is no canonical savepoint (it has a {kind}): stop the job with `flink stop --type canonical`"
                )
        self._proxies = [self._read_proxy(handle) for handle in self._handles]
        self._infos: dict[str, Any] = {}
        for proxy in self._proxies:
            for info in self._jvm.java.util.ArrayList(proxy.getStateMetaInfoSnapshots()):
                self._infos.setdefault(info.getName(), info)
        self.states = StateNames({name: number for number, name in enumerate(self._infos)})
        self.bytes = sum(int(handle.getStateSize()) for handle in self._handles)

    def timers(self) -> int:
        """The number of the state of processing-time timers."""
        named = [number for name, number in self.states.numbers.items() if name.startswith(_TIMERS)]
        if len(named) != 1:
            raise SettingsError(f"the savepoint has {len(named)} states of processing-time timers, one is expected")
        return named[0]

    def entries(self) -> Iterator[Entry]:
        """All entries; `state` is the number in `states`."""
        for handle, proxy in zip(self._handles, self._proxies, strict=True):
            listed = [info.getName() for info in self._jvm.java.util.ArrayList(proxy.getStateMetaInfoSnapshots())]
            numbers = [self.states.numbers[name] for name in listed]
            for entry in self._entries(handle, proxy):
                yield entry._replace(state=numbers[entry.state])

    def _entries(self, handle: Any, proxy: Any) -> Iterator[Entry]:
        decorator, stream = _compression(proxy.isUsingKeyGroupCompression()), handle.openInputStream()
        try:
            groups = handle.getKeyGroupRange()
            for group in range(groups.getStartKeyGroup(), groups.getEndKeyGroup() + 1):
                if offset := handle.getOffsetForKeyGroup(group):
                    stream.seek(offset)
                    yield from entries(ByteReader(decorator.decorateWithCompression(stream).readNBytes))
        finally:
            stream.close()

    def _read_proxy(self, handle: Any) -> Any:
        flink, stream = self._jvm.org.apache.flink, handle.openInputStream()
        try:
            proxy = flink.runtime.state.KeyedBackendSerializationProxy(
                self._jvm.Thread.currentThread().getContextClassLoader()
            )
            proxy.read(flink.core.memory.DataInputViewStreamWrapper(stream))
            return proxy
        finally:
            stream.close()

    def write_header(self, stream: Any) -> None:
        """Write the list of states to a (Java) output stream."""
        flink, infos = self._jvm.org.apache.flink, self._jvm.java.util.ArrayList()
        for info in self._infos.values():
            infos.add(info)
        serializer = self._proxies[0].getKeySerializerSnapshot().restoreSerializer()
        proxy = flink.runtime.state.KeyedBackendSerializationProxy(serializer, infos, False)
        proxy.write(flink.core.memory.DataOutputViewStreamWrapper(stream))


def _compression(is_used: bool) -> Any:
    state = get_gateway().jvm.org.apache.flink.runtime.state
    return (
        state.SnappyStreamCompressionDecorator if is_used else state.UncompressedStreamCompressionDecorator
    ).INSTANCE


class KeyGroupFile:
    """A file with the entries of one key group. `handle` closes it."""

    def __init__(self, folder: "NewSavepoint", name: str, key_group: int, source: KeyedSource) -> None:
        self._folder, self._name, self._key_group = folder, name, key_group
        self._held = bytearray()
        self._stream = folder.create(name)
        source.write_header(self._stream)
        self._offset = int(self._stream.getPos())
        self._writer = KeyGroupWriter(self._write)

    def add(self, entry: Entry) -> None:
        """Write an entry; `state` is the number in the source's `states`."""
        self._writer.add(entry)

    def handle(self) -> Any:
        """Close the file, and return its (Java) handle; None if there was no entry, and no file is left."""
        flink = get_gateway().jvm.org.apache.flink.runtime.state
        is_used = self._writer.close()
        self._flush()
        size = int(self._stream.getPos())
        self._stream.close()
        path = self._folder.path_of(self._name)
        if not is_used:
            path.getFileSystem().delete(path, False)
            return None
        offsets = flink.KeyGroupRangeOffsets(self._key_group, self._key_group)
        offsets.setKeyGroupOffset(self._key_group, self._offset)
        file = flink.filesystem.RelativeFileStateHandle(path, self._name, size)
        return flink.KeyGroupsSavepointStateHandle(offsets, file)

    def _write(self, raw: bytes) -> None:
        self._held += raw
        if len(self._held) >= OUT_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._stream.write(bytes(self._held))
            self._held.clear()


class NewSavepoint:
    """A folder that becomes a savepoint when `complete` is called. Unless it is kept, nothing of it remains.

    Raises :class:`SettingsError` if there is anything at `path`, or if it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._jvm = get_gateway().jvm
        self._folder = self._jvm.org.apache.flink.core.fs.Path(path)
        self.path = path
        self._is_kept = False
        try:
            self._system = self._folder.getFileSystem()
            if self._system.exists(self._folder):
                raise SettingsError(f"{path} already exists and is not overwritten: name another folder")
            self._system.mkdirs(self._folder)
        except Py4JJavaError as error:
            raise SettingsError(f"{path} cannot be written: {_first_line(error)}") from None

    def __enter__(self) -> "NewSavepoint":
        return self

    def __exit__(self, *raised: object) -> None:
        if not self._is_kept:
            with suppress(Py4JError):
                self._system.delete(self._folder, True)

    def keep(self, is_kept: bool) -> None:
        """Let the savepoint stay, or go."""
        self._is_kept = is_kept

    def path_of(self, name: str) -> Any:
        """The (Java) path of a file."""
        return self._jvm.org.apache.flink.core.fs.Path(self._folder, name)

    def create(self, name: str) -> Any:
        """A (Java) output stream to a new file."""
        return self._system.create(
            self.path_of(name), self._jvm.org.apache.flink.core.fs.FileSystem.WriteMode.NO_OVERWRITE
        )

    def copy(self, operator: Any) -> None:
        """Copy the files that `operator` refers to."""
        for subtask in self._jvm.java.util.ArrayList(operator.getStates()):
            for handle in self._jvm.java.util.ArrayList(subtask.getDiscardables()):
                self._copy_file(_file_of(handle))

    def _copy_file(self, file: Any) -> None:
        if file is None:
            return
        if file.getClass().getSimpleName() != "RelativeFileStateHandle":
            raise SettingsError(
                f"the savepoint refers to a file outside of its folder ({file.getClass().getSimpleName()}): stop the "
                "job with `flink stop --type canonical`, which writes all that belongs to it"
            )
        name = file.getRelativePath()
        if self._system.exists(self.path_of(name)):
            return
        self._jvm.org.apache.flink.util.IOUtils.copyBytes(file.openInputStream(), self.create(name), OUT_BYTES, True)

    def complete(self, metadata: Any, written_ms: int | None) -> None:
        """Write the metadata: from now on this is a savepoint.

        On a local disk, it is dated `written_ms`: what state holds is as old as the savepoint that it comes from, and
        erasures and rotations go by the date of the metadata.
        """
        stream = self.create(METADATA)
        try:
            self._jvm.org.apache.flink.runtime.checkpoint.Checkpoints.storeCheckpointMetadata(metadata, stream)
        finally:
            stream.close()
        if written_ms is not None and not self._system.isDistributedFS():
            os.utime(path_of(self._folder.getPath()) / METADATA, (written_ms / 1000, written_ms / 1000))


def _file_of(handle: Any) -> Any:
    """The (Java) handle of the file behind a handle; None if its bytes are in the metadata."""
    while handle.getClass().getSimpleName() in _WRAPPERS:
        handle = handle.getDelegateStateHandle()
    return handle if handle.maybeGetPath().isPresent() else None


def with_keyed_state(operator: Any, handles: Mapping[int, Any], parallelism: int) -> Any:
    """The (Java) state of `operator` with `handles`, by key group, as its keyed state.

    Metadata holds one handle for a subtask, so `parallelism` is the number of key groups that are used: it is that of
    the savepoint, and says nothing about the job that restores it. Raises :class:`SettingsError` if the operator has
    other state besides.
    """
    jvm = get_gateway().jvm
    runtime = jvm.org.apache.flink.runtime
    for subtask in jvm.java.util.ArrayList(operator.getStates()):
        if subtask.getDiscardables().size() != subtask.getManagedKeyedState().size():
            raise SettingsError("the savepoint has state of personalise that is not keyed: a later release wrote it")
    most, mine = (
        operator.getMaxParallelism(),
        runtime.checkpoint.OperatorState(
            operator.getOperatorName().orElse(None),
            operator.getOperatorUid().orElse(None),
            operator.getOperatorID(),
            parallelism,
            operator.getMaxParallelism(),
        ),
    )
    for group, handle in handles.items():
        number = runtime.state.KeyGroupRangeAssignment.computeOperatorIndexForKeyGroup(most, parallelism, group)
        builder = runtime.checkpoint.OperatorSubtaskState.builder()
        mine.putState(number, builder.setManagedKeyedState(handle).build())
    return mine


def put_list_state(operator: Any, name: str, change: Any) -> int:
    """Replace each entry of the operator's only list state `name`, bytes, by what `change` makes of it.

    Returns how many there were.
    """
    jvm, count = get_gateway().jvm, 0
    runtime, memory = jvm.org.apache.flink.runtime, jvm.org.apache.flink.core.memory
    serializer = jvm.org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer.INSTANCE
    for number in range(operator.getParallelism()):
        subtask = operator.getState(number)
        if subtask is None:
            continue
        changed = jvm.java.util.ArrayList()
        for handle in jvm.java.util.ArrayList(subtask.getManagedOperatorState()):
            places = handle.getStateNameToPartitionOffsets()
            if set(places.keySet()) != {name}:
                raise SettingsError(
                    f"the savepoint has other states beside {name}: no release of Freshet has written it"
                )
            offsets = list(places.get(name).getOffsets())
            stream = handle.openInputStream()
            try:
                header = stream.readNBytes(min(offsets, default=0))
                held = []
                for offset in offsets:
                    stream.seek(offset)
                    held.append(bytes(serializer.deserialize(memory.DataInputViewStreamWrapper(stream))))
            finally:
                stream.close()
            if held:
                changed.add(_list_state(name, header, [change(raw) for raw in held], places.get(name)))
                count += len(held)
        collection = runtime.checkpoint.StateObjectCollection(changed)
        operator.putState(number, subtask.toBuilder().setManagedOperatorState(collection).build())
    return count


def _list_state(name: str, header: bytes, values: list[bytes], before: Any) -> Any:
    """The (Java) handle of a list state, with its bytes in the metadata."""
    gateway = get_gateway()
    state = gateway.jvm.org.apache.flink.runtime.state
    raw, offsets = bytearray(header), gateway.new_array(gateway.jvm.long, len(values))
    for place, value in enumerate(values):
        offsets[place] = len(raw)
        raw += len(value).to_bytes(4, "big") + value
    info = gateway.jvm.org.apache.flink.runtime.state.OperatorStateHandle.StateMetaInfo(
        offsets, before.getDistributionMode()
    )
    places = gateway.jvm.java.util.HashMap()
    places.put(name, info)
    identity = gateway.jvm.java.util.UUID.randomUUID().toString()
    return state.OperatorStreamStateHandle(places, state.memory.ByteStreamStateHandle(identity, bytes(raw)))
