"""`freshet model evaluate`: the online model on a file of one's own, asked before it learns, beside popularity."""

import json
from pathlib import Path

import numpy as np
import pytest

from freshet.cli.main import run
from models.evaluate_online import NEW_ITEMS, ONLINE, ONLINE_MEASURES, evaluate_online
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


def test_online_model_finds_what_popularity_cannot(stream: Interactions) -> None:
    found = evaluate_online(stream)
    for suffix in ("", NEW_ITEMS):
        popular = [row["ndcg@10"] for name, row in found.items() if "popularity" in name and name.endswith(suffix)]
        assert len(popular) >= 4
        assert found[ONLINE + suffix]["ndcg@10"] > max(popular) + 0.3
    assert found[ONLINE]["questions"] == len(stream) / 2


def test_evaluation_of_the_same_file_gives_the_same_measures(stream: Interactions) -> None:
    assert evaluate_online(stream) == evaluate_online(stream)


def test_kinds_that_do_not_move_lists_are_not_asked_about(stream: Interactions, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to evaluate"):
        evaluate_online(read(circles(tmp_path, kind="impression"), Columns()))


def test_users_with_one_event_give_no_measures(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to evaluate"):
        evaluate_online(read(circles(tmp_path, steps=1), Columns()))


def test_command_prints_measures_and_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = circles(tmp_path)
    assert run(["model", "evaluate", str(path)]) == 0
    told = capsys.readouterr()
    assert all(measure in told.out.splitlines()[0] for measure in ONLINE_MEASURES)
    assert told.out.splitlines()[1].startswith(ONLINE)
    assert "evaluated, all items: 160 of 160 steps" in told.err
    assert run(["model", "evaluate", str(path), "--json"]) == 0
    measures = json.loads(capsys.readouterr().out)
    assert all(np.isfinite(value) for row in measures.values() for value in row.values())
