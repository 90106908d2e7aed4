"""The heap profile and the RocksDB profile: canonical savepoints of one start the other, other snapshots are refused,
and the memory that Flink is given holds the whole process, Python included."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.flink_profiles import Demand, State, flink_settings, size_bytes
from deploy.local import product
from deploy.local.errors import SubmitError
from deploy.local.flink_config import read_flat
from deploy.local.paths import FLINK_CONF
from schemas import topics
from tests.support.containers import container
from tests.support.examples import cases
from tests.support.golden_savepoints import stop_natively
from tests.support.live import Live, start_live

USERS = [f"shopper-{number}" for number in range(300)]
ITEMS = 60_000
OTHER = {"hashmap": "rocksdb", "rocksdb": "hashmap"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A stack of the RocksDB profile; the heap is one setting away."""
    running = start_live(tmp_path_factory.mktemp("backends"), 1, flink_settings(Demand(State.ROCKSDB)))
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


def start_from(live: Live, snapshot: str, backend: str) -> None:
    options = (f"-Dstate.backend.type={backend}", "-s", snapshot)
    live.job_id = product.submit(live.stack, live.product.settings_path, options)
    live.stack.rest.wait_running(live.job_id)


def shop(live: Live, times: int) -> None:
    """Let every user click, and wait until the job has counted it."""
    sent = live.accounted()
    for _ in range(times):
        for number, user in enumerate(USERS):
            live.interact(user, f"item-{number % 50 + 1:05d}")
    live.wait_until_accounted(sent + times * len(USERS))


@pytest.mark.promise("savepoints")
def test_canonical_savepoint_starts_the_other_backend_with_the_exact_state(live: Live) -> None:
    live.consent(USERS)
    shop(live, 3)
    for backend in ("hashmap", "rocksdb", "hashmap", "rocksdb"):
        before, known = live.plain_states(USERS), live.known_users()
        assert len(before) == len(USERS)
        start_from(live, live.stack.rest.stop_with_savepoint(live.job_id), backend)
        assert live.plain_states(USERS) == before
        assert live.known_users() == known
        shop(live, 1)
    versions = {state["version"] for state in live.plain_states(USERS).values()}
    assert versions == {1 + 3 + 4}, "nothing lost, nothing twice"
    live.checkpoint()


@pytest.mark.parametrize("kind", cases(["checkpoint", "native savepoint"]))
@pytest.mark.parametrize("backend", ["rocksdb", "hashmap"])
def test_snapshot_in_the_format_of_a_backend_is_refused_by_the_other(live: Live, backend: str, kind: str) -> None:
    start_from(live, live.stack.rest.stop_with_savepoint(live.job_id), backend)
    shop(live, 1)
    before = live.plain_states(USERS)
    snapshot = stop_natively(live) if kind == "native savepoint" else cancel_at_checkpoint(live)
    told = rf"not submitted: the snapshot is in the format of the state backend {backend}, .* canonical savepoint"
    with pytest.raises(SubmitError, match=told):
        start_from(live, snapshot, OTHER[backend])
    start_from(live, snapshot, backend)
    assert live.plain_states(USERS) == before


def cancel_at_checkpoint(live: Live) -> str:
    live.checkpoint()
    path = live.stack.rest.checkpoints(live.job_id)["latest"]["completed"]["external_path"]
    live.stack.rest.cancel(live.job_id)
    return str(path)


def test_rocksdb_without_incremental_checkpoints_is_refused(live: Live) -> None:
    with pytest.raises(SubmitError, match=r"execution\.checkpointing\.incremental is not true"):
        product.submit(
            live.stack,
            live.product.settings_path,
            ("-Dstate.backend.type=rocksdb", "-Dexecution.checkpointing.incremental=false"),
        )


@pytest.mark.parametrize("state", cases([State.ROCKSDB, *(state for state in State if state != State.ROCKSDB)]))
@pytest.mark.parametrize("mode", cases(["thread", "process"]))
def test_process_size_holds_java_and_python_under_load(tmp_path: Path, state: State, mode: str) -> None:
    """The model learns as many items as it was given memory for. Java's heap is touched as a whole, as after hours.

    Where this machine lets us, the kernel limits the TaskManager as it limits a container.
    """
    touched = {"env.java.opts.taskmanager": "-XX:+UseParallelGC -XX:+AlwaysPreTouch", "python.execution-mode": mode}
    settings = {**flink_settings(Demand(state, items=ITEMS)), **touched}
    given = size_bytes(settings["taskmanager.memory.process.size"])
    live = start_live(tmp_path, 1, settings, model=None)
    manager = live.stack.task_managers()[0].pid
    with container(manager, given) as limited:
        if limited is not None:
            live.stack.kill_task_manager()  # its successor starts within the limit
        watch = Watch(manager)
        try:
            live.consent(USERS)
            for first in range(0, ITEMS, 5_000):
                numbers = [first + number for _ in range(3) for number in range(5_000)]
                clicks = [(USERS[number // 20 % len(USERS)], f"item-{number}") for number in numbers]
                live.send(topics.INTERACTIONS, [(user.encode(), live.event(user, item)) for user, item in clicks])
                live.wait_until_accounted((first // 5_000 + 1) * len(numbers))
            live.checkpoint()
        finally:
            highest = watch.stop()
            live.close()
            live.stack.stop()
        print(f"{state}, {mode} mode: {highest >> 20} MB of {given >> 20} MB; {watch.parts}")
        assert highest < given, watch.parts
        if limited is not None:
            print(f"in a container of that size: at most {limited.highest() >> 20} MB with its page cache")
            assert limited.kills() == 0


def test_job_manager_size_holds_main_in_application_mode(live: Live) -> None:
    """The client runs the same `main()` that the JobManager runs beside itself in application mode."""
    savepoint, watch = live.stack.rest.stop_with_savepoint(live.job_id), Watch(os.getpid())
    start_from(live, savepoint, "rocksdb")
    watch.stop()
    main = max(rss for name, rss in watch.largest.items() if name.startswith("python"))
    [java] = [each.pid for each in live.stack.processes() if each.name == "jobmanager"]
    manager = psutil.Process(java).memory_info().rss
    print(f"main(): {main >> 20} MB, JobManager: {manager >> 20} MB")
    defaults = read_flat(FLINK_CONF.read_text())
    assert main < size_bytes(defaults["jobmanager.memory.off-heap.size"])
    assert manager + main < size_bytes(defaults["jobmanager.memory.process.size"])


class Watch:
    """Looks at the resident memory of a process and its children until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._process, self._stopped, self._highest = psutil.Process(pid), threading.Event(), 0
        self.parts: dict[str, int] = {}
        self.largest: dict[str, int] = {}
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(0.2):
            found = {}
            for one in self._process.children(recursive=True):
                try:
                    found[f"{one.name()} {one.pid}"] = one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.largest |= {name: max(rss, self.largest.get(name, 0)) for name, rss in found.items()}
            if sum(found.values()) > self._highest:
                self._highest, self.parts = sum(found.values()), {name: rss >> 20 for name, rss in found.items()}

    def stop(self) -> int:
        """The most that was seen, in bytes."""
        self._stopped.set()
        self._thread.join()
        return self._highest
