"""Dashboards: well-formed, bound to one data source, with queries for existing metrics.

`tests/e2e/test_compliance.py` compares them with the metrics of a running job.
"""

from typing import Any

import pytest

from tests.support.dashboards import dashboards, names_in, queries
from udfs.audit_counts import PRIVACY_COUNTERS
from udfs.operators.personalise_operator import COUNTERS, UNREAD

FLINKS = "flink_taskmanager_job_task_operator_"
OURS = f"{FLINKS}freshet_"
LATE_RESTORES = "restores_past_transactions"
"""Counted by `jobs/java/freshet/SnapshotGuard.java`."""
PRIVACY = dashboards()["privacy.json"]


@pytest.mark.parametrize(
    ("query", "metrics", "labels"),
    [
        ("up", {"up"}, set()),
        ('sum(rate(a_total{job=~"$x, y{"}[$__rate_interval]))', {"a_total"}, {"job"}),
        ("sum by (tm_id, le) (a:b) / (c > 0)", {"a:b", "c"}, {"tm_id", "le"}),
        ("rate(a[5m:1m] offset 1h) and on(x) b or vector(0)", {"a", "b"}, {"x"}),
        ('label_values(a{b="c"}, d)', {"a"}, {"b", "d"}),
        ("max_over_time(a[1h]) * 1e3 unless ignoring (q) group_left (z) b{}", {"a", "b"}, {"q", "z"}),
    ],
)
def test_queries_are_parsed(query: str, metrics: set[str], labels: set[str]):
    assert names_in(query) == (metrics, labels)


def test_privacy_dashboard_shows_exactly_the_privacy_counters():
    asked = {name.removeprefix(OURS) for query in queries() for name in names_in(query)[0] if name.startswith(OURS)}
    assert {*PRIVACY_COUNTERS, "users_relinked"} <= asked <= {*PRIVACY_COUNTERS, *COUNTERS, LATE_RESTORES}


@pytest.mark.parametrize("metric", [f"{OURS}{UNREAD}", f"{OURS}{LATE_RESTORES}", f"{FLINKS}failedCommittables"])
def test_alerts_are_on_the_privacy_dashboard(metric: str):
    shown = [panel for panel in PRIVACY["panels"] if any(metric in target["expr"] for target in panel["targets"])]
    assert shown and all("Alert above" in panel["description"] for panel in shown)


def test_the_dashboard_has_one_data_source_and_is_in_utc():
    assert PRIVACY["timezone"] == "utc" and PRIVACY["schemaVersion"] >= 41
    sources = [variable for variable in PRIVACY["templating"]["list"] if variable["type"] == "datasource"]
    assert [(source["name"], source["query"]) for source in sources] == [("datasource", "prometheus")]
    used = {str(found) for panel in PRIVACY["panels"] for found in (panel["datasource"], *sources_of(panel))}
    assert used == {"{'type': 'prometheus', 'uid': '${datasource}'}"}


def sources_of(panel: dict[str, Any]) -> list[dict[str, str]]:
    return [target["datasource"] for target in panel["targets"]]


def test_panels_have_unique_ids_do_not_overlap_and_are_described():
    panels = PRIVACY["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    covered: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & covered and place["x"] + place["w"] <= 24
        covered |= cells
        assert panel["title"] and panel["description"].endswith(".")
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
