"""`freshet model evaluate`: the online model on a file of one's own, asked before it learns, beside popularity."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.study import ONLINE, PRINTED, Study, StudyOptions, as_json_value, study
from freshet.cli.main import run
from models.interactions import Columns, Interactions, read
from schemas.errors import ModelError

START_MS = 1_709_251_200_000
CIRCLE = 30


def circles(folder: Path, kind: str = "view", users: int = 20, steps: int = 8) -> Path:
    """Users who take items in a circle, each from a place of its own: the next item follows from the last."""
    path = folder / "circles.csv"
    events = sorted(
        (START_MS + 60_000 * step + 1_000 * user, user, (7 * user + step) % CIRCLE)
        for user in range(users)
        for step in range(steps)
    )
    path.write_text("user_id,item_id,type,ts\n" + "".join(f"{u},item-{i},{kind},{ts}\n" for ts, u, i in events))
    return path


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    return read(circles(tmp_path_factory.mktemp("circles")), Columns())


@pytest.fixture(scope="module")
def studied(stream: Interactions) -> Study:
    return study(stream, StudyOptions())


def test_online_model_finds_what_popularity_cannot(stream: Interactions, studied: Study) -> None:
    found = studied.tables
    for table in found.values():
        popular = [table.ndcg(name) for name in table.measured if "popularity" in name]
        assert len(popular) >= 4
        assert table.ndcg(ONLINE) > max(popular) + 0.3
        assert table.differences[table.best_simple].mean == pytest.approx(
            table.ndcg(ONLINE) - table.ndcg(table.best_simple)
        )
    assert len(found["all"].times_ms) == len(stream) / 2


def test_evaluation_of_the_same_file_gives_the_same_measures(stream: Interactions, studied: Study) -> None:
    assert as_json_value(study(stream, StudyOptions())) == as_json_value(studied)


def test_kinds_that_do_not_move_lists_are_not_asked_about(stream: Interactions, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to evaluate"):
        study(read(circles(tmp_path, kind="impression"), Columns()), StudyOptions())


def test_users_with_one_event_give_no_measures(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to evaluate"):
        study(read(circles(tmp_path, steps=1), Columns()), StudyOptions())


def test_command_prints_measures_and_progress_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, report = circles(tmp_path), tmp_path / "report.html"
    assert run(["model", "evaluate", str(path), "--report", str(report)]) == 0
    told = capsys.readouterr()
    assert all(measure in told.out.splitlines()[1] for measure in PRINTED)
    assert any(line.startswith(ONLINE) for line in told.out.splitlines()[2:6])
    assert "evaluated, all items: 160 of 160 steps" in told.err
    assert "<svg" in report.read_text()


@pytest.mark.parametrize("protocol", ["prequential", "leave-one-out", "global-time"])
def test_command_prints_json_by_protocol_and_segment(
    protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = circles(tmp_path)
    assert run(["model", "evaluate", str(path), "--json", "--protocol", protocol, "--by", "type", "--in-order"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["protocol"], found["in_order"]) == (protocol, True)
    table = found["tables"]["all"]
    assert all(np.isfinite(value) for row in table["methods"].values() for value in row.values())
    assert table["segments"]["type"]["view"]["questions"] == table["methods"][ONLINE]["questions"]
    assert table["online_minus"][table["best_simple"]]["low"] <= table["online_minus"][table["best_simple"]]["high"]


def test_the_column_of_the_user_makes_no_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "evaluate", str(circles(tmp_path)), "--by", "user_id"]) == 2
    assert "--by user_id is the column of the user" in capsys.readouterr().err
