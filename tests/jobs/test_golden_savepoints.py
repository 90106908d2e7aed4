"""The golden savepoints: what a submission of this checkout says of each, from the files and the job's own graph."""

import functools
from pathlib import Path

import pytest
from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment

from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisSettings
from deploy.local import flink_libraries
from jobs import replacement
from jobs.deployment import Deployment
from jobs.job_plan import job_plan
from jobs.personalise import wire
from jobs.replacement import check_newest_checkpoint
from jobs.settings import ModelSettings, Settings
from jobs.snapshots import SnapshotUnreadable, check_snapshot, read_snapshot, report_on
from jobs.state_report import JobPlan, Verdict
from schemas.errors import SettingsError
from tests.support.golden_savepoints import FOLDER, USER, VARIANTS, unpacked

RELEASES = sorted(path.stem for path in FOLDER.glob("release-*.xz"))
VERDICTS = {
    "before-a-new-field": (Verdict.COMPATIBLE, ""),
    "with-an-operator-removed-since": (Verdict.REFUSED, "state of the operator popular, which this job does not have"),
    "newer-state": (Verdict.REFUSED, "the state users-v2 of the operator personalise was written by newer code"),
    "process-mode": (Verdict.NEEDS_BACKFILL, "the snapshot was taken with python.execution-mode process"),
    "rocksdb-native": (Verdict.REFUSED, "in the format of the state backend rocksdb"),
    "8-buckets": (Verdict.NEEDS_BACKFILL, "the snapshot was taken with job.buckets 8, and this submission has 4"),
} | dict.fromkeys(RELEASES, (Verdict.COMPATIBLE, ""))


@pytest.fixture(scope="module")
def env() -> StreamExecutionEnvironment:
    env = StreamExecutionEnvironment.get_execution_environment(Configuration())
    env.add_jars(*(jar.as_uri() for jar in flink_libraries.directory().glob("*kafka*.jar")))
    return env


def plan_of(env: StreamExecutionEnvironment, pins: dict[str, str]) -> JobPlan:
    """What this checkout's job, in thread mode on the heap, expects of a snapshot of the deployment with these pins."""
    settings = Settings(KafkaSettings("nowhere:1"), RedisSettings(("redis://nowhere",)), ModelSettings())
    deployment = Deployment(settings.job.buckets, settings.job.max_parallelism, "thread", "", "", "", 1, {}, {}, {})
    env.set_max_parallelism(settings.job.max_parallelism)
    return job_plan(env, settings, pins, functools.partial(wire, env, settings, deployment))


@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_verdict_on_each_golden_savepoint(env: StreamExecutionEnvironment, tmp_path: Path, name: str) -> None:
    snapshot = unpacked(name, tmp_path)
    [*_, pins] = read_snapshot(snapshot).pins
    now = {**pins, "job.buckets": "4", "python.execution-mode": "thread"}
    report, (verdict, why) = report_on(snapshot, plan_of(env, now)), VERDICTS[name]
    assert (report.verdict, len(report.findings)) == (verdict, bool(why)), report
    assert all(why in finding.why for finding in report.findings)
    if why:
        with pytest.raises(SettingsError, match=why):
            check_snapshot(snapshot, plan_of(env, now))


def test_every_golden_savepoint_has_a_verdict_and_holds_no_user_id(tmp_path: Path) -> None:
    assert {path.stem for path in FOLDER.iterdir()} == VERDICTS.keys() == VARIANTS.keys() | set(RELEASES)
    for name in VERDICTS:
        unpacked(name, tmp_path)
        assert USER.encode() not in (tmp_path / name / "_metadata").read_bytes()


def test_state_of_another_deployment_is_refused(env: StreamExecutionEnvironment, tmp_path: Path) -> None:
    snapshot = unpacked(RELEASES[-1], tmp_path)
    [*_, pins] = read_snapshot(snapshot).pins
    report = report_on(snapshot, plan_of(env, {**pins, "kafka.topic_prefix": '"another."'}))
    assert [finding.verdict for finding in report.findings] == [Verdict.REFUSED]


def test_unreadable_snapshot_is_no_verdict_and_left_to_the_job(
    env: StreamExecutionEnvironment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(env, {})
    (tmp_path / "_metadata").write_bytes(b"damaged")
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SnapshotUnreadable, match="cannot be read here"):
            report_on(place.as_uri(), plan)
        check_snapshot(place.as_uri(), plan)
        assert "cannot be read here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "why"), [("newer-state", "was written by newer code"), ("rocksdb-native", None), (RELEASES[-1], None)]
)
def test_upgrade_is_refused_by_the_state_in_the_newest_checkpoint_but_not_by_its_format(
    env: StreamExecutionEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str | None
) -> None:
    """A canonical savepoint takes the place of the checkpoint, which one backend alone can read."""
    snapshot = unpacked(name, tmp_path)
    [*_, pins] = read_snapshot(snapshot).pins
    monkeypatch.setattr(replacement, "_newest_checkpoint", lambda env, job: snapshot)
    if why is None:
        assert check_newest_checkpoint(env, "job", plan_of(env, pins))
        return
    with pytest.raises(SettingsError, match=why):
        check_newest_checkpoint(env, "job", plan_of(env, pins))


def test_checkpoint_that_is_deleted_while_it_is_read_is_looked_for_again(
    env: StreamExecutionEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot, gone = unpacked(RELEASES[-1], tmp_path), (tmp_path / "gone").as_uri()
    [*_, pins] = read_snapshot(snapshot).pins
    newest = [snapshot, gone]
    monkeypatch.setattr(replacement, "_newest_checkpoint", lambda env, job: newest.pop())
    assert check_newest_checkpoint(env, "job", plan_of(env, pins))
    monkeypatch.setattr(replacement, "_newest_checkpoint", lambda env, job: gone)
    assert not check_newest_checkpoint(env, "job", plan_of(env, pins))
    assert "will be examined once job job is stopped" in capsys.readouterr().err
