"""Flink's configuration by profile and size: the file in the repository is the calculator's answer for a small shop."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.flink_profiles import ROCKSDB_CONF, Demand, State, config_yaml, flink_settings, size_bytes, size_of
from deploy.local.flink_config import read_flat
from deploy.local.flink_jvm import memory_arguments
from deploy.local.flink_libraries import classpath
from deploy.local.java import Java
from deploy.local.paths import FLINK_CONF
from freshet.cli.flink_conf import StateName
from freshet.cli.main import run

DEFAULTS = read_flat(FLINK_CONF.read_text())


def placed(demand: Demand) -> dict[str, str]:
    return {key: json.loads(value) for key, value in read_flat(config_yaml(demand)).items()}


def test_the_file_in_the_repository_is_the_heap_profile_of_a_small_shop() -> None:
    assert placed(Demand()) == DEFAULTS, "correct the memory section of flink-conf.yaml"


def test_the_rocksdb_profile_replaces_its_lines_and_memory_only() -> None:
    profile, rocksdb = read_flat(ROCKSDB_CONF.read_text()), placed(Demand(State.ROCKSDB))
    changed = {key for key in rocksdb if rocksdb[key] != DEFAULTS.get(key)}
    assert {key for key in changed if ".memory." not in key or key in profile} == profile.keys()
    assert {key: rocksdb[key] for key in profile} == profile


def test_the_command_line_has_the_same_profiles() -> None:
    assert [each.value for each in StateName] == [each.value for each in State]


@given(
    st.sampled_from(State), st.integers(0, 20_000_000), st.integers(0, 1_000_000), st.integers(1, 64), st.integers(1, 9)
)
def test_more_to_hold_never_needs_less_memory(state: State, users: int, items: int, managers: int, more: int) -> None:
    needed = size_of(Demand(state, users, items, managers)).process_mb
    assert size_of(Demand(state, users * more, items * more, managers)).process_mb >= needed
    assert size_of(Demand(state, users, items, managers * more)).process_mb <= needed


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("users", [0, 100_000, 3_000_000, 20_000_000])
def test_flink_accepts_the_sizes_and_gives_the_heap_its_share(tmp_path: Path, state: State, users: int) -> None:
    """Flink's own calculation, which refuses sizes that do not add up."""
    demand = Demand(state, users)
    (tmp_path / "config.yaml").write_text(config_yaml(demand))
    flags, _ = memory_arguments(Java(tmp_path), tmp_path / "config.yaml", classpath(), "GET_TM_RESOURCE_PARAMS")
    [heap] = [int(flag.removeprefix("-Xmx")) for flag in flags if flag.startswith("-Xmx")]
    assert abs(heap / 2**20 - (size_of(demand).heap_mb + 128)) <= 2, "with 128 MB of Flink's own"


def test_a_task_manager_holds_python_beside_what_flink_counts() -> None:
    """Before, Python's 600 MB were outside of `process.size`, and a container of this size was killed."""
    settings = flink_settings(Demand())
    assert size_bytes(settings["taskmanager.memory.task.off-heap.size"]) >= 500 * 2**20


def test_the_command_prints_the_file_and_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["flink-conf", "--state", "rocksdb", "--users", "5000000", "--task-managers", "4"]) == 0
    printed = capsys.readouterr()
    demand = Demand(State.ROCKSDB, 5_000_000, task_managers=4)
    assert printed.out == config_yaml(demand)
    assert f"each TaskManager: {size_of(demand).process_mb:,} MB" in printed.err
