from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models.graph import Transitions, fp32_model
from models.manifest import RECENT_ITEMS_MAX, TrainingWindow
from models.model_directory import Card, export
from models.quantise import int8_of, quantised
from models.random_model import random_model, random_transitions
from models.scorer import CHUNK_USERS, Scorer, best_of
from schemas.errors import ModelError
from tests.support.examples import examples
from tests.support.models import edit_manifest, history, naive_scores, plain_model, put_graph

ITEMS, TOP_K = 300, 20
NUMBERS = random_transitions(ITEMS, 16, seed=3)
User = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]
seeds = st.integers(0, 2**32 - 1)


def a_user(seed: int) -> User:
    """A history of 0 to 20 rows, some repeated or padding in the middle, with some weights of 0."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, random.choice([2, 10, ITEMS + 1]), RECENT_ITEMS_MAX, dtype=np.int32)
    rows[: random.integers(0, RECENT_ITEMS_MAX + 1)] = 0
    weights = random.exponential(size=RECENT_ITEMS_MAX) * (random.random(RECENT_ITEMS_MAX) < random.choice([0.2, 1]))
    return rows, weights.astype(np.float32)


def exported(directory: Path, numbers: Transitions, top_k: int = TOP_K, *, int8: bool = True) -> Scorer:
    ids = [f"item-{row}" for row in range(1, numbers.items + 1)]
    export(directory, numbers, ids, top_k, Card("test", TrainingWindow(0, 0, 0, 0, len(ids))), int8=int8)
    return Scorer.open(directory)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return exported(tmp_path_factory.mktemp("int8") / "model", NUMBERS)


@pytest.fixture(scope="module")
def precise(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return exported(tmp_path_factory.mktemp("fp32") / "model", NUMBERS, int8=False)


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as refused:
        Scorer.open(directory)
    return str(refused.value)


@settings(max_examples=examples(30), deadline=None)
@given(seed=seeds)
def test_fp32_scores_equal_the_naive_twin(precise: Scorer, seed: int) -> None:
    items, weights = a_user(seed)
    scores, rows = precise.score(items[None], weights[None])
    naive = naive_scores(NUMBERS, items.tolist(), weights.tolist())
    assert scores[0] == pytest.approx([naive[row] for row in rows[0]], abs=1e-4)
    assert scores[0] == pytest.approx(sorted(naive, reverse=True)[:TOP_K], abs=1e-4)


@settings(max_examples=examples(30), deadline=None)
@given(seed=seeds)
def test_int8_scores_equal_the_naive_twin_on_rounded_values(scorer: Scorer, seed: int) -> None:
    items, weights = a_user(seed)
    stored, scales = quantised(NUMBERS.values)
    rounded = Transitions(NUMBERS.neighbours, stored * scales[:, None], NUMBERS.bias, NUMBERS.lag_weights)
    scores, rows = scorer.score(items[None], weights[None])
    naive = naive_scores(rounded, items.tolist(), weights.tolist())
    assert scores[0] == pytest.approx([naive[row] for row in rows[0]], abs=1e-4)
    assert scores[0] == pytest.approx(sorted(naive, reverse=True)[:TOP_K], abs=1e-4)


@settings(max_examples=examples(25), deadline=None)
@given(batch=st.lists(seeds, min_size=1, max_size=12))
def test_scores_do_not_depend_on_the_batch(scorer: Scorer, batch: list[int]) -> None:
    users = [a_user(seed) for seed in batch]
    items, weights = np.stack([items for items, _ in users]), np.stack([weights for _, weights in users])
    together = scorer.score(items, weights)
    for user in range(len(users)):
        single = scorer.score(items[user : user + 1], weights[user : user + 1])
        assert np.array_equal(together[0][user], single[0][0])
        assert np.array_equal(together[1][user], single[1][0])


def test_batch_larger_than_a_chunk_is_scored_in_order(scorer: Scorer) -> None:
    items = np.random.default_rng(1).integers(0, ITEMS + 1, (2 * CHUNK_USERS + 5, RECENT_ITEMS_MAX)).astype(np.int32)
    weights = np.random.default_rng(2).random((len(items), RECENT_ITEMS_MAX), np.float32)
    scores, rows = scorer.score(items, weights)
    assert rows.shape == scores.shape == (len(items), TOP_K)
    last = scorer.score(items[-1:], weights[-1:])
    assert np.array_equal(rows[-1], last[1][0])


def test_no_users_get_no_lists(scorer: Scorer) -> None:
    scores, rows = scorer.score(np.zeros((0, RECENT_ITEMS_MAX), np.int32))
    assert scores.shape == rows.shape == (0, TOP_K)


@settings(max_examples=examples(20), deadline=None)
@given(seed=seeds)
def test_lists_are_best_first_without_padding_or_repeats(scorer: Scorer, seed: int) -> None:
    scores, rows = scorer.score(a_user(seed)[0][None])
    assert (np.diff(scores[0]) <= 0).all()
    assert len(set(rows[0])) == TOP_K
    assert rows.min() >= 1
    assert rows.max() <= ITEMS


def test_a_user_without_history_gets_the_popular_items_in_order(scorer: Scorer) -> None:
    _, rows = scorer.score(history())
    assert rows[0].tolist() == list(range(1, TOP_K + 1))


def test_padding_never_counts(scorer: Scorer) -> None:
    heavy = np.ones((1, RECENT_ITEMS_MAX), np.float32)
    heavy[0, :-1] = 100
    light = np.zeros_like(heavy)
    light[0, -1] = 1
    assert np.array_equal(scorer.score(history(7), heavy)[0], scorer.score(history(7), light)[0])


def test_only_weight_proportions_count(scorer: Scorer) -> None:
    weights = np.linspace(0.5, 4, RECENT_ITEMS_MAX, dtype=np.float32)[None]
    items = np.arange(1, RECENT_ITEMS_MAX + 1, dtype=np.int32)[None]
    assert np.array_equal(scorer.score(items, weights)[0], scorer.score(items, weights / 8)[0])


def test_a_newer_item_counts_more_than_an_older_one(scorer: Scorer) -> None:
    newest = int(NUMBERS.neighbours[7][NUMBERS.values[7].argmax()])
    first, second = scorer.score(history(9, 7)), scorer.score(history(7, 9))
    score_of = [dict(zip(rows[0], scores[0], strict=True)) for scores, rows in (first, second)]
    assert score_of[0][newest] > score_of[1][newest]


def test_int8_lists_overlap_those_of_fp32_by_more_than_95_percent(scorer: Scorer, precise: Scorer) -> None:
    items = np.random.default_rng(5).integers(0, ITEMS + 1, (100, RECENT_ITEMS_MAX)).astype(np.int32)
    pairs = zip(scorer.score(items)[1], precise.score(items)[1], strict=True)
    assert np.mean([len(set(a) & set(b)) / TOP_K for a, b in pairs]) > 0.95


def test_a_vocabulary_smaller_than_top_k_is_listed_whole(tmp_path: Path) -> None:
    manifest = random_model(tmp_path / "tiny", items=3, top_k=50)
    tiny = Scorer.open(tmp_path / "tiny")
    assert manifest.top_k == 3
    assert sorted(tiny.score(history(1, 2))[1][0].tolist()) == [1, 2, 3]
    assert tiny.items == ["", "item-00001", "item-00002", "item-00003"]
    assert tiny.index == {"item-00001": 1, "item-00002": 2, "item-00003": 3}


def test_a_vocabulary_of_one_item_works(tmp_path: Path) -> None:
    random_model(tmp_path / "one", items=1)
    assert Scorer.open(tmp_path / "one").score(history(1))[1].tolist() == [[1]]


def test_export_is_deterministic(tmp_path: Path) -> None:
    first = random_model(tmp_path / "a", items=50, seed=4)
    assert random_model(tmp_path / "b", items=50, seed=4) == first
    assert random_model(tmp_path / "c", items=50, seed=5).sha256 != first.sha256


def test_new_model_replaces_the_old_one_cleanly(tmp_path: Path) -> None:
    random_model(tmp_path / "model", items=50, seed=4)
    newer = random_model(tmp_path / "model", items=50, seed=5)
    assert Scorer.open(tmp_path / "model").manifest == newer
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_directory_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="contains files other than a model"):
        random_model(tmp_path, items=5)
    assert (tmp_path / "thesis.txt").exists()
    (tmp_path / "empty").mkdir()
    manifest = random_model(tmp_path / "empty", items=5)
    assert Scorer.open(tmp_path / "empty").manifest == manifest, "where nothing is, nothing is lost"


@pytest.mark.parametrize("other", ["index.html", "part-00000.jsonl.gz", "NOTES.md", "src"])
@pytest.mark.parametrize("with_model", [False, True])
def test_folder_with_a_manifest_and_other_files_is_not_replaced(tmp_path: Path, other: str, with_model: bool) -> None:
    if with_model:
        random_model(tmp_path / "it", items=5)
    else:
        (tmp_path / "it").mkdir()
        (tmp_path / "it" / "manifest.json").write_text('{"name": "my web app"}')
    (tmp_path / "it" / other).mkdir() if other == "src" else (tmp_path / "it" / other).write_text("work")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError, match=f"files other than a model, such as {other}"):
        random_model(tmp_path / "it", items=5, seed=7)
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_with_only_a_manifest_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "my web app"}')
    with pytest.raises(ModelError, match="no whole model"):
        random_model(tmp_path, items=5)
    assert (tmp_path / "manifest.json").read_text() == '{"name": "my web app"}'


def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    random_model(tmp_path / "v1", items=5)
    (tmp_path / "current").symlink_to("v1")
    (tmp_path / "next").symlink_to("v2")
    newer = random_model(tmp_path / "current", items=5, seed=7)
    other = random_model(tmp_path / "next", items=5, seed=8)
    assert Scorer.open(tmp_path / "v1").manifest == newer and Scorer.open(tmp_path / "v2").manifest == other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "next", "v1", "v2"]
    assert (tmp_path / "current").is_symlink() and (tmp_path / "next").is_symlink()


@pytest.mark.parametrize("rows", [[-1], [ITEMS + 1]])
def test_a_row_outside_the_vocabulary_is_refused(scorer: Scorer, rows: list[int]) -> None:
    with pytest.raises(ModelError, match=f"outside 0..{ITEMS}"):
        scorer.score(history(*rows))


def test_wrong_shape_is_refused(scorer: Scorer) -> None:
    with pytest.raises(ModelError, match=r"takes int32\[users, 20\]"):
        scorer.score(np.zeros((1, 5), np.int32))
    with pytest.raises(ModelError, match="give one for each"):
        scorer.score(history(1), np.ones((2, RECENT_ITEMS_MAX), np.float32))


def a_plain_directory(tmp_path: Path, users: int | str = "users") -> Path:
    directory = tmp_path / "model"
    random_model(directory, items=6, neighbours=2, top_k=3)
    put_graph(
        directory,
        plain_model(6, users),
        inputs={"items": {"dtype": "int32", "shape": ["users", RECENT_ITEMS_MAX]}},
        outputs={"scores": {"dtype": "float32", "shape": ["users", 7]}},
        quantisation="fp32",
    )
    return directory


def test_plain_scores_model_is_ranked_without_padding(tmp_path: Path) -> None:
    plain = Scorer.open(a_plain_directory(tmp_path))
    scores, rows = plain.score(history(5, 2, 5), np.ones((1, RECENT_ITEMS_MAX), np.float32))
    assert rows.tolist() == [[5, 2, 1]]
    assert scores.tolist() == [[2, 1, 0]]


def test_a_graph_fixed_to_one_user_is_refused(tmp_path: Path) -> None:
    said = refusal(a_plain_directory(tmp_path, users=1))
    assert "input 'items' is int32[1, 20], the manifest says int32[users, 20]" in said


def test_a_graph_with_other_inputs_than_the_manifest_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    random_model(directory, items=6, neighbours=2, top_k=3)
    edit_manifest(directory, inputs={"items": {"dtype": "int32", "shape": ["users", RECENT_ITEMS_MAX]}})
    assert "has the inputs items, weights; the manifest says items" in refusal(directory)


def test_a_graph_with_another_top_k_than_the_manifest_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    random_model(directory, items=6, neighbours=2, top_k=3)
    ranked = {
        name: {"dtype": dtype, "shape": ["users", 4]} for name, dtype in (("scores", "float32"), ("ids", "int64"))
    }
    edit_manifest(directory, top_k=4, outputs=ranked)
    said = refusal(directory)
    assert "[users, 3], the manifest says" in said
    assert "[users, 4]" in said


def test_file_that_is_not_an_onnx_graph_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    random_model(directory, items=6, neighbours=2, top_k=3)
    broken = plain_model(6)
    broken.graph.node[0].op_type = "Wish"
    put_graph(directory, broken)
    assert "is not a graph that onnxruntime" in refusal(directory)


def test_graph_listing_padding_is_refused_at_warm_up(tmp_path: Path) -> None:
    numbers = random_transitions(6, 2, seed=0)
    numbers.bias[0] = 1e6
    with pytest.raises(ModelError, match=r"row outside 1\.\.6"):
        exported(tmp_path / "model", numbers, top_k=3)


def test_graph_with_non_finite_scores_is_refused_at_warm_up(tmp_path: Path) -> None:
    numbers = random_transitions(6, 2, seed=0)
    numbers.bias[3] = -np.inf
    with pytest.raises(ModelError, match="not finite"):
        exported(tmp_path / "model", numbers, top_k=6)


def test_only_the_built_in_graph_can_be_quantised() -> None:
    other = helper.make_model(helper.make_graph([], "other", [], []))
    with pytest.raises(ModelError, match="only the built-in model"):
        int8_of(other)


def test_int8_takes_a_quarter_of_the_bytes_of_the_values() -> None:
    wide = random_transitions(200, 64, seed=1)
    fp32 = fp32_model(wide, 10)
    saved = len(fp32.SerializeToString()) - len(int8_of(fp32).SerializeToString())
    assert saved == pytest.approx(wide.values.size * 3, rel=0.1)
    assert all(constant.data_type != TensorProto.DOUBLE for constant in fp32.graph.initializer)


@settings(max_examples=examples(30), deadline=None)
@given(data=st.data(), columns=st.integers(2, 30))
def test_plain_scores_are_ranked_as_a_stable_sort_would(data: st.DataObject, columns: int) -> None:
    scores = data.draw(st.lists(st.integers(-3, 3), min_size=columns, max_size=columns))
    k = data.draw(st.integers(1, columns - 1))
    best, rows = best_of(np.array([scores], np.float32), k)
    expected = sorted(range(1, columns), key=lambda row: -scores[row])[:k]
    assert best[0].tolist() == [scores[row] for row in expected]
    assert rows[0].tolist() == expected


def test_nan_scores_affect_their_user_only() -> None:
    scores, rows = best_of(np.array([[0, np.nan, np.nan, 1], [0, 1, 3, 2]], np.float32), 2)
    assert np.isnan(scores[0]).all(), "a failure of the model, and not a user without recommendations"
    assert (scores[1].tolist(), rows[1].tolist()) == ([3, 2], [2, 3])
    assert rows.min() >= 1
