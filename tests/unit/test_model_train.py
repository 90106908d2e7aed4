import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.frozen import choose_decay, evaluate
from evaluation.train import interactions_in, train_and_export
from freshet.cli.main import run
from models.interactions import Columns, Interactions, from_frame, from_rows, parse_line, read
from models.scorer import Scorer
from models.transitions import TrainingSettings, train
from schemas.errors import ModelError
from tests.support.models import BEGINNING, history, purchases

SMALL = TrainingSettings(item_users_min=1, popular_users_min=1, top_k=10, neighbours=8)


def followers(interactions: Interactions, item: str, settings_: TrainingSettings = SMALL) -> dict[str, float]:
    """The items that follow ``item``, and how strongly."""
    trained = train(interactions, settings_)
    row = trained.items.index(item) + 1
    named = zip(trained.numbers.neighbours[row], trained.numbers.values[row], strict=True)
    return {trained.items[neighbour - 1]: float(value) for neighbour, value in named if neighbour}


def a_shop(users: int = 60, seed: int = 0) -> Interactions:
    """Users who buy tents, then pegs, then stoves; others who buy pens, then ink, then paper; in many variants."""
    random = np.random.default_rng(seed)
    baskets = []
    for user in range(users):
        chain = ("tent", "pegs", "stove") if user % 2 else ("pen", "ink", "paper")
        start = int(random.integers(0, 40))
        baskets += [
            (f"user-{user}", start + day, f"{item}-{int(random.integers(0, 4))}") for day, item in enumerate(chain)
        ]
    return purchases(*baskets)


def test_later_purchases_follow_earlier_ones_only() -> None:
    sequences = purchases(("ada", 1, "tent"), ("ada", 2, "pegs"), ("bob", 1, "tent"), ("bob", 3, "pegs"))
    assert set(followers(sequences, "tent")) == {"pegs"}
    assert followers(sequences, "pegs") == {}


def test_items_of_a_basket_follow_each_other_symmetrically() -> None:
    baskets = purchases(("ada", 1, "tea cup"), ("bob", 1, "tea cup"))
    assert followers(baskets, "tea")["cup"] == pytest.approx(followers(baskets, "cup")["tea"])


def test_the_order_of_lines_within_a_basket_does_not_matter() -> None:
    one = train(purchases(("ada", 1, "tea cup"), ("ada", 2, "milk")), SMALL)
    two = train(purchases(("ada", 2, "milk"), ("ada", 1, "cup tea")), SMALL)
    assert one.items == two.items
    assert np.array_equal(one.numbers.values, two.numbers.values)


def test_an_item_does_not_follow_itself_within_a_basket() -> None:
    assert "tea" not in followers(purchases(("ada", 1, "tea tea cup"), ("bob", 1, "tea cup")), "tea")


def test_later_steps_count_less() -> None:
    chain = purchases(("ada", 1, "a"), ("ada", 2, "b"), ("ada", 3, "c"))
    slow, fast = (followers(chain, "a", replace(SMALL, lag_decay=decay))["c"] for decay in (0.9, 0.1))
    assert slow == pytest.approx(0.9 / 1.9, rel=0.05)
    assert fast == pytest.approx(0.1 / 1.1, rel=0.05)


def test_a_large_basket_counts_less_for_each_of_its_items() -> None:
    data = purchases(("ada", 1, "a"), ("ada", 2, "x"), ("bob", 1, "b c d e"), ("bob", 2, "y"))
    trained = train(data, replace(SMALL, basket_weight=0.0))
    counts = trained.learned.counts
    row = {item: code for code, item in enumerate(trained.items)}
    assert counts[row["b"], row["y"]] == pytest.approx(counts[row["a"], row["x"]] / 2)


def test_duplicate_lines_count_once() -> None:
    assert followers(purchases(("ada", 1, "tea tea cup")), "tea") == followers(purchases(("ada", 1, "tea cup")), "tea")


def a_tale(telling: int, users: int = 100) -> Interactions:
    """Users who choose four of 12 hints at random, an hour apart, then what the hint at ``telling`` points to."""
    random = np.random.default_rng(0)
    baskets = []
    for user in range(users):
        hints = random.choice(12, 4, replace=False)
        items = [f"hint-{hint}" for hint in hints] + [f"end-{hints[telling]}"]
        baskets += [(f"user-{user}", user + hour, item) for hour, item in enumerate(items)]
    found = purchases(*baskets)
    return replace(found, ts_ms=BEGINNING + (found.ts_ms - BEGINNING) // 24)


def test_decay_is_chosen_by_the_data() -> None:
    assert choose_decay(a_tale(telling=3), SMALL).history_decay == 0.5
    assert (choose_decay(a_tale(telling=0), SMALL).history_decay or 0) >= 0.95


def test_older_steps_count_less() -> None:
    data = purchases(("ada", 1, "a"), ("ada", 2, "old"), ("bob", 300, "a"), ("bob", 301, "new"))
    counts = followers(data, "a")
    assert counts["new"] > 3 * counts["old"]


def test_nothing_follows_beyond_the_lag_window() -> None:
    chain = purchases(*[("ada", day, f"item-{day}") for day in range(8)])
    assert set(followers(chain, "item-0")) == {f"item-{lag}" for lag in range(1, SMALL.lags + 1)}


def test_users_do_not_mix() -> None:
    assert followers(purchases(("ada", 1, "a"), ("bob", 2, "b")), "a") == {}


def test_unweighted_kinds_are_ignored() -> None:
    with pytest.raises(ModelError, match=r"there is nothing to learn: give more data$"):
        train(purchases(("ada", 1, "a b"), kind="impression"), SMALL)


def test_too_few_users_is_reported() -> None:
    with pytest.raises(ModelError, match="no item was used by 2 users or more"):
        train(purchases(("ada", 1, "a"), ("bob", 2, "b")))


def test_rows_are_ordered_by_recent_popularity_and_the_bias_falls_with_them() -> None:
    data = purchases(*[(f"u{n}", 1, "old") for n in range(5)], *[(f"u{n}", 60, "new") for n in range(3)])
    trained = train(data, SMALL)
    assert trained.items == ["new", "old"]
    assert trained.item_users.tolist() == [3, 5]
    assert trained.numbers.bias[0] == -np.inf
    assert (np.diff(trained.numbers.bias[1:]) <= 0).all()


def test_training_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = train_and_export(a_shop(), tmp_path / "a")
    assert train_and_export(a_shop(), tmp_path / "b") == first


def test_trained_model_recommends_followers(tmp_path: Path) -> None:
    manifest = train_and_export(a_shop(), tmp_path / "model", SMALL)
    scorer = Scorer.open(tmp_path / "model")
    best = [scorer.items[row] for row in scorer.score(history(scorer.index["tent-0"]))[1][0][:4]]
    assert all(item.startswith(("pegs", "stove")) for item in best)
    assert manifest.training_window.users == 60
    assert manifest.kind_weights["purchase"] == 3


def test_popular_items_below_the_minimum_of_users_are_not_named(tmp_path: Path) -> None:
    data = purchases(*[(f"u{n}", n % 3, "milk") for n in range(6)], ("u0", 1, "rare"), ("u1", 2, "rare"))
    manifest = train_and_export(data, tmp_path / "model", TrainingSettings(popular_users_min=5))
    assert manifest.popular == ("milk",)
    assert manifest.items_count == 2


def test_model_beats_popularity_on_sequential_data() -> None:
    metrics = evaluate(a_shop(users=300), SMALL)
    assert metrics["int8"]["ndcg@10"] > metrics["popularity"]["ndcg@10"] + 0.1
    assert metrics["int8"]["ndcg@10"] == pytest.approx(metrics["fp32"]["ndcg@10"], abs=0.01)


def test_training_stops_at_the_split() -> None:
    before = [(f"u{n}", n % 7, f"early-{n % 5}") for n in range(40)]
    after = [(f"u{n}", 30, "late") for n in range(40) if n % 4 == 0]
    assert evaluate(purchases(*before, *after), SMALL)["int8"]["hr@10"] == 0


def test_unusable_rows_are_dropped_and_counted() -> None:
    good: dict[str, object] = {"user_id": 7.0, "item_id": "hat", "ts": BEGINNING, "type": "view", "n": 1}
    bad: list[dict[str, object]] = [
        {"user_id": None},
        {"item_id": None},
        {"type": "sneeze"},
        {"n": 0},
        {"ts": 5},
        {"item_id": "x" * 65},
    ]
    frame = pd.DataFrame([good] + [good | change for change in bad])
    data = from_frame(frame, Columns(quantity="n"))
    assert len(data) == 1
    assert data.item_ids == ["hat"]
    assert list(data.dropped.values()) == [1] * 6
    assert set(data.dropped) >= {"no user", "no item", "unknown kind", "quantity not above zero"}


def test_times_are_read_as_milliseconds_or_as_dates_in_utc() -> None:
    columns = Columns(every="view")
    numbers = pd.DataFrame({"user_id": ["a"], "item_id": ["x"], "ts": [1_700_000_000_123]})
    dates = pd.DataFrame({"user_id": ["a"], "item_id": ["x"], "ts": ["2023-11-14T22:13:20.123"]})
    stamps = dates.assign(ts=pd.to_datetime(dates["ts"], utc=True))
    for frame in (numbers, dates, stamps):
        assert from_frame(frame, columns).ts_ms.tolist() == [1_700_000_000_123]


def test_missing_column_is_named_with_its_option_and_alternatives() -> None:
    with pytest.raises(ModelError, match=r"no column 'user_id': name it with --user; the columns are who, what"):
        from_frame(pd.DataFrame({"who": ["a"], "what": ["x"]}), Columns(every="view"))
    with pytest.raises(ModelError, match="'gift' is not a kind of event"):
        from_frame(pd.DataFrame({"who": ["a"]}), Columns(every="gift"))


def test_lines_that_are_not_objects_are_dropped() -> None:
    lines = [b'{"pseudonym":"a","item_id":"x","type":"view","ts":%d}' % BEGINNING, b"[1]", b"\xff", b"[" * 5000]
    data = from_rows(map(parse_line, lines))
    assert len(data) == 1
    assert sum(data.dropped.values()) == 3


def test_empty_input_is_reported() -> None:
    with pytest.raises(ModelError, match="the input is empty"):
        from_rows([])


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_files_of_each_form_give_the_same_interactions(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"user_id": ["1", "2"], "item_id": ["007", "8"], "ts": [BEGINNING] * 2, "type": ["view"] * 2})
    path = tmp_path / f"data.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        path.write_text("\n".join(map(json.dumps, frame.to_dict("records"))))
    assert read(path, Columns()).item_ids == ["007", "8"]


def test_the_command_trains_from_stdin_and_ends_with_the_metrics_and_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = a_shop(users=80)
    rows = zip(shop.users, shop.items, shop.ts_ms, strict=True)
    lines = [
        json.dumps({"pseudonym": f"p{user}", "item_id": shop.item_ids[item], "ts": int(ts), "type": "purchase"})
        for user, item, ts in rows
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert run(["model", "train", "-", "--out", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("int8, new items") for line in said)
    assert said[-1].endswith(str(tmp_path / "model"))
    assert Scorer.open(tmp_path / "model").manifest.metrics["popularity"]["hr@10"] >= 0


def test_command_reports_why_no_model_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "train", str(tmp_path / "none.csv"), "--out", str(tmp_path / "model")]) == 2
    assert "freshet: not done: " in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_standard_input_has_the_default_user_column_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_from_stdin(user: str) -> int:
        rows = [{user: f"u{n % 3}", "item_id": "a", "type": "view", "ts": 1_700_000_000_000 + n} for n in range(9)]
        lines = "\n".join(json.dumps(row) for row in rows)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        return len(interactions_in("-", Columns()))

    assert [read_from_stdin(user) for user in ("user_id", "pseudonym")] == [9, 9]
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ModelError, match="standard input is closed"):
        interactions_in("-", Columns())


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (Columns(time="item_id"), "--item and --time"),
        (Columns(kind="ts"), "--time and --kind"),
        (Columns(user="item_id"), "--user and --item"),
    ],
)
def test_one_column_in_two_roles_is_refused(tmp_path: Path, columns: Columns, named: str) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,ts,type\nu,i,1700000000000,view\n")
    with pytest.raises(ModelError, match=f"is the column of {named}"):
        read(tmp_path / "rows.csv", columns)


def test_more_neighbours_than_items_take_no_memory() -> None:
    settings = TrainingSettings(neighbours=100_000_000, item_users_min=1)
    trained = train(a_shop(), settings)
    assert trained.numbers.neighbours.shape[1] <= len(trained.items)
