"""The pure parts of the consent-cost benchmark: pairs and ratios, withdrawals, receipts, limits, wording."""

import itertools
import statistics
import zipfile
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import fence, metrics_cost, privacy, privacy_report
from bench.ablation import with_others
from bench.figures import verdicts
from bench.privacy import ABLATION, PRODUCT, Pair, order
from bench.run import PARTS
from bench.testbed import ABLATION_FILES
from bench.throughput import Side
from deploy.local.paths import ROOT
from deploy.package import build, write_zip
from freshet.cli.bench import PartName
from schemas.receipts import ConsentReceipt, ElementReceipt, encode_receipt
from schemas.wire.codecs import json_codec
from tests.support.vocabulary import BEGINNING
from udfs import profile
from udfs.account import Account
from udfs.operators.outputs import totals


def a_pair(product_us: float, ablation_us: float) -> Pair:
    """A thousand events on each side, at so many microseconds per event."""
    return Pair(*(Side(1_000, 1.0, {"redis": us / 1_000}, {}) for us in (product_us, ablation_us)))


def a_receipt(level: str = "none", outcome: str = "in_force") -> bytes:
    return encode_receipt(ConsentReceipt("p1.ada", level, 3, BEGINNING, 0, 7, outcome, BEGINNING))


@given(st.integers(1, 20))
def test_sides_take_turns_and_each_pair_has_both(pairs: int) -> None:
    planned = order(pairs)
    assert all(set(sides) == {PRODUCT, ABLATION} for sides in planned)
    firsts = Counter(first for first, _ in planned)
    assert abs(firsts[PRODUCT] - firsts[ABLATION]) <= 1
    assert all(one != next_one for one, next_one in itertools.pairwise(planned))


@given(st.lists(st.tuples(st.floats(50, 200), st.floats(50, 200)), min_size=1, max_size=7))
def test_figure_is_the_median_of_pair_ratios(costs) -> None:
    found = privacy.figures([a_pair(*cost) for cost in costs])
    ratios = [product / ablation for product, ablation in costs]
    assert found["privacy_cpu_ratios"] == pytest.approx(ratios, abs=0.00051)
    assert found["privacy_cpu_ratio"] == pytest.approx(statistics.median(ratios), abs=0.00051)


@pytest.mark.parametrize(("ratio", "is_met"), [(1.0, True), (1.1, True), (1.101, False)])
def test_consent_cost_limit_is_ten_percent(ratio: float, is_met: bool) -> None:
    [verdict] = verdicts({"privacy_cpu_ratio": ratio, "privacy_cpu_ratios": [ratio - 0.1, ratio, ratio + 0.2]})
    assert verdict.figure == f"{ratio:.3f} ({ratio - 0.1:.3f}–{ratio + 0.2:.3f})"
    assert (verdict.part, verdict.is_met, verdict.limit) == ("privacy", is_met, "<= 1.10")


@pytest.mark.parametrize(("read_ms", "is_met"), [(90, True), (150, True), (152, False)])
def test_metrics_may_cost_one_percent_of_a_core_at_the_shipped_interval(read_ms: float, is_met: bool) -> None:
    found = metrics_cost.MetricReads(60, 90_000, 900, 60 * read_ms / 1000)
    [verdict] = verdicts(metrics_cost.figures(found))
    assert (verdict.part, verdict.is_met, verdict.limit) == ("metrics", is_met, "<= 1% of a core")


def test_a_withdrawal_is_a_valid_record_keyed_by_its_user() -> None:
    key, value = fence.withdrawal(fence.withdrawing_user(7), BEGINNING)
    change, has_unknown_fields = json_codec().consent(value)
    assert (change.user_id.encode(), change.level, change.ts, has_unknown_fields) == (key, "none", BEGINNING, False)


def test_only_a_withdrawal_in_force_counts_as_its_receipt() -> None:
    element = ElementReceipt(0, 1, BEGINNING, "m", [], totals(Account()))
    assert fence.withdrawn_name(a_receipt()) == "p1.ada"
    others = [a_receipt(level="full"), a_receipt(outcome="stale"), encode_receipt(element)]
    assert [fence.withdrawn_name(other) for other in others] == [None, None, None]


def test_privacy_figures_use_pairs_and_acknowledgements() -> None:
    fences = fence.Fences([fence.Fence(500, [40.0, 50.0], [60.0, 90.0], 0.004)], 0.2)
    body = privacy_report.body([a_pair(105, 100), a_pair(112, 100)], 10_000, fences, fence.FencePlan(2, 30))
    assert "| pair 1 | 105.0 | 100.0 | 1.050 |" in body
    assert "Ratio: 1.085 (median of 2, 1.050–1.120)." in body
    assert "| redis | 108.5 | 100.0 |" in body
    assert "| 500 events/s: acknowledged → fence | 40.0 | 50.0 | 50.0 | 50.0 |" in body
    assert "| 500 events/s: acknowledged → receipt | 60.0 | 90.0 | 90.0 | 90.0 |" in body
    assert fence.figures(fences)["ack_to_fence_ms"] == {"500": {"p50": 40.0, "p95": 50.0, "p99": 50.0, "max": 50.0}}


def test_each_part_can_run_alone() -> None:
    assert list(PartName) == list(PARTS)


def test_replacing_unknown_names_is_refused() -> None:
    other = with_others(profile.take, allows=None)
    assert other.__globals__["allows"] is None and profile.take.__globals__["allows"] is not None
    assert other.__code__ is not profile.take.__code__
    with pytest.raises(LookupError, match="take knows no permits"):
        with_others(profile.take, permits=None)


def test_ablation_is_packaged_outside_the_product(tmp_path) -> None:
    product = zipfile.ZipFile(build(tmp_path / "product.zip")).namelist()
    ablation = write_zip(tmp_path / "ablation.zip", [ROOT / "bench" / name for name in ABLATION_FILES])
    assert "jobs/personalise.py" in product and not any(name.startswith("bench") for name in product)
    assert zipfile.ZipFile(ablation).namelist() == [f"bench/{name}" for name in sorted(ABLATION_FILES)]
