"""Dashboards: well-formed, bound to one data source, with queries for existing metrics.

`tests/e2e/test_compliance.py` compares them with the metrics of a running job.
"""

from typing import Any

import pytest

from schemas.metrics import FLINK, GATEWAY, JOB, RESTORES_PAST_TRANSACTIONS, UNREAD, USERS_RELINKED
from schemas.metrics import PRIVACY as PRIVACY_METRICS
from tests.support.dashboards import dashboards, names_in, queries

COMMITS = "flink_taskmanager_job_task_operator_failedCommittables"
LISTED = {name for metric in (*JOB, *GATEWAY) for name in metric.exported()} | FLINK.keys()
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


def test_privacy_dashboard_shows_all_privacy_counters():
    asked = {name for query in queries("privacy.json") for name in names_in(query)[0]}
    assert {metric.full_name for metric in (*PRIVACY_METRICS, USERS_RELINKED)} <= asked


def test_each_metric_of_the_job_is_on_a_dashboard():
    asked = {name for query in queries() for name in names_in(query)[0]}
    assert [metric.name for metric in JOB if not asked & set(metric.exported())] == []


def test_dashboards_ask_for_listed_metrics_only():
    asked = {name for query in queries() for name in names_in(query)[0]}
    assert asked <= LISTED | {"up"}


@pytest.mark.parametrize("metric", [UNREAD.full_name, RESTORES_PAST_TRANSACTIONS.full_name, COMMITS])
def test_alerts_are_on_the_privacy_dashboard(metric: str):
    shown = [panel for panel in PRIVACY["panels"] if any(metric in target["expr"] for target in panel["targets"])]
    assert shown and all("Alert above" in panel["description"] for panel in shown)


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboard_has_one_data_source_and_is_in_utc(name: str):
    dashboard = dashboards()[name]
    assert dashboard["timezone"] == "utc" and dashboard["schemaVersion"] >= 41
    sources = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "datasource"]
    assert [(source["name"], source["query"]) for source in sources] == [("datasource", "prometheus")]
    used = {str(found) for panel in dashboard["panels"] for found in (panel["datasource"], *sources_of(panel))}
    assert used == {"{'type': 'prometheus', 'uid': '${datasource}'}"}


def sources_of(panel: dict[str, Any]) -> list[dict[str, str]]:
    return [target["datasource"] for target in panel["targets"]]


@pytest.mark.parametrize("name", dashboards())
def test_panels_have_unique_ids_do_not_overlap_and_are_described(name: str):
    panels = dashboards()[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    covered: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & covered and place["x"] + place["w"] <= 24
        covered |= cells
        assert panel["title"] and panel["description"].endswith(".")
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
