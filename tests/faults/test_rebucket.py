"""`freshet rebucket`: a stopped job goes on with another number of buckets, and every user with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.flink_profiles import Demand, State, flink_settings
from deploy.local import product
from deploy.local.errors import SubmitError
from freshet.cli.main import INTERRUPTED, run
from freshet.cli.shape import ExitCode
from jobs.rebucket import DIVIDING
from jobs.rebucket import rebucket as divide
from jobs.registration import last_recorded
from jobs.settings import load_settings
from privacy.audit_verification import public_keys, verification
from privacy.user_routes import user_routes
from schemas.errors import SettingsError
from schemas.progress import on_progress
from tests.support.examples import cases
from tests.support.live import Live, start_live, until

pytestmark = pytest.mark.privacy
USERS = [f"shopper-{number}" for number in range(120)]
LEFT, LEAVES = USERS[:10], USERS[10:20]
"""Who withdrew before buckets were changed, and who does after that."""


@pytest.fixture(scope="module", params=cases(["thread", "process"]))
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A stack of the RocksDB profile; the heap is one setting away."""
    settings = {**flink_settings(Demand(State.ROCKSDB)), "python.execution-mode": request.param}
    running = start_live(tmp_path_factory.mktemp("rebucket"), 1, settings)
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


def with_buckets(live: Live, buckets: int) -> Path:
    """The settings file with another number of buckets."""
    text = live.product.settings_path.read_text()
    other = live.product.settings_path.with_name(f"buckets-{buckets}.toml")
    other.write_text(text.replace("[model]\n", f"[job]\nbuckets = {buckets}\n\n[model]\n", 1))
    return other


def shop(live: Live, users: list[str]) -> None:
    """Let each user click once, and wait until the job has counted it."""
    sent = live.accounted()
    for number, user in enumerate(users):
        live.interact(user, f"item-{number % 50 + 1:05d}")
    live.wait_until_accounted(sent + len(users))


def rebucket(path: Path, source: str, target: str, buckets: int) -> int:
    words = ["rebucket", "--settings", str(path), "--from", source, "--to", target, "--buckets", str(buckets)]
    return run(words)


def expect_no_start_from_a_part(live: Live, path: Path, savepoint: str) -> None:
    """A savepoint of which a file was not copied whole is refused before a job starts."""
    part = next(file for file in Path(savepoint).iterdir() if file.name.startswith("bucket-"))
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    try:
        with pytest.raises(
            SubmitError, match=f"damaged or was not copied whole: .*{part.name} has {len(whole) - 1} bytes"
        ):
            product.submit(live.stack, path, ("-s", savepoint))
    finally:
        part.write_bytes(whole)


@pytest.fixture(scope="module")
def kept(live: Live) -> dict[str, str]:
    """Savepoints of the job by number of buckets, once it has had 8 and has 4 again, and is stopped."""
    return {}


@pytest.mark.promise("buckets")
def test_users_totals_and_withdrawals_survive_4_8_4_buckets(
    live: Live, kept: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.consent(USERS)
    shop(live, USERS)
    live.consent(LEFT, "none")
    path = live.product.settings_path
    for buckets, backend in ((8, "hashmap"), (4, "rocksdb")):
        before, known, sent = live.plain_states(USERS), live.known_users(), live.accounted()
        running = live.stack.rest.take_savepoint(live.job_id, None, 60)["location"]
        assert rebucket(path, running, str(tmp_path / "running"), buckets) == ExitCode.NOT_DONE
        told = capsys.readouterr().err
        assert "was taken while the job went on" in told and not (tmp_path / "running").exists()
        savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
        target = str(tmp_path / f"buckets-{buckets}")
        assert rebucket(path, savepoint, target, buckets) == 0
        other = with_buckets(live, buckets)
        expect_no_start_from_a_part(live, other, target)
        with pytest.raises(SubmitError, match=r"job\.buckets"):
            product.submit(live.stack, path, ("-s", savepoint))
        path = other
        live.job_id = product.submit(live.stack, path, (f"-Dstate.backend.type={backend}", "-s", target))
        live.stack.rest.wait_running(live.job_id)
        live.settings = load_settings(path)
        live.accounts = {bucket: account for bucket, account in live.accounts.items() if bucket < buckets}
        assert live.plain_states(USERS) == before
        assert live.known_users() == known
        live.wait_until_accounted(sent)
        shop(live, USERS)
    live.consent(LEAVES, "none")
    shop(live, USERS)
    for user in LEFT + LEAVES:
        assert live.list_of(user) is None
    states = live.plain_states(USERS)
    stayed = {live.pseudonymiser.user(user) for user in USERS if user not in LEFT + LEAVES}
    assert {states[name]["version"] for name in stayed} == {1 + 4}
    live.checkpoint()
    kept["8"], kept["4"] = str(tmp_path / "buckets-8"), live.stack.rest.stop_with_savepoint(live.job_id)
    found = until(lambda: verification(live.settings, public_keys(live.settings), []), "the trail")
    assert not found.findings
    assert any("another number of buckets" in remark for remark in found.remarks)
    recorded = last_recorded(live.settings.kafka)
    assert recorded is not None and (recorded.buckets, recorded.bits_by) == (4, 4)


def test_what_cannot_be_divided_is_refused_and_leaves_nothing(
    live: Live, kept: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = live.product.settings_path, tmp_path / "new"
    (tmp_path / "there").mkdir()
    for source, to, buckets, told in [
        (kept["4"], tmp_path / "there", 8, "already exists and is not overwritten"),
        (kept["4"], target, 4, "has 4 buckets already"),
        (kept["4"], target, 129, "job.max_parallelism 128"),
        (kept["8"], target, 8, "was taken with job.buckets 8"),
        (str(tmp_path), target, 8, "no savepoint can be read"),
    ]:
        assert rebucket(path, source, str(to), buckets) == ExitCode.NOT_DONE
        assert told in capsys.readouterr().err
        assert not target.exists()
    assert [*(tmp_path / "there").iterdir()] == []


@pytest.mark.parametrize("buckets", [2, 6])
def test_interrupted_command_leaves_no_savepoint_and_the_record_as_it_was(
    live: Live, kept: dict[str, str], tmp_path: Path, buckets: int
) -> None:
    recorded, target = last_recorded(live.settings.kafka), tmp_path / "new"

    def press_ctrl_c(work: str, done: float) -> None:
        if work == DIVIDING:
            assert [*target.iterdir()], "files were being written"
            raise KeyboardInterrupt

    before = on_progress.set(press_ctrl_c)
    try:
        assert rebucket(live.product.settings_path, kept["4"], str(target), buckets) == INTERRUPTED
    finally:
        on_progress.reset(before)
    assert not target.exists()
    assert last_recorded(live.settings.kafka) == recorded


def test_user_of_whom_consents_says_nothing_stops_the_command_unless_they_had_withdrawn(
    live: Live, kept: dict[str, str], tmp_path: Path
) -> None:
    routes = user_routes(live.settings).of
    gone, refused = live.pseudonymiser.user(LEFT[0]), live.pseudonymiser.user(USERS[-1])

    def without(name: str) -> int | None:
        return None if name == unknown else routes(name)

    unknown, target = refused, str(tmp_path / "new")
    with pytest.raises(SettingsError, match="1 users in the savepoint have a consent that `consents` does not hold"):
        divide(live.settings, kept["4"], target, 8, lambda: without)
    assert not Path(target).exists()
    unknown = gone
    done = divide(live.settings, kept["4"], target, 8, lambda: without)
    assert (done.users, done.dropped) == (len(USERS) - 1, 1)
