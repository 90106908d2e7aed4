"""The page of metrics, from :mod:`schemas.metrics`."""

from collections.abc import Iterable

from schemas.metrics import FLINK, GATEWAY, JOB, Metric

_INTRODUCTION = """# Metrics

Flink's Prometheus reporter serves the metrics of the job, `GET /metrics` those of the gateway. In Flink, the labels
of a metric are a part of its name. `deploy/prometheus/prometheus.yml` makes the names below of those: use its rule
`metric_relabel_configs`, or

    flink_taskmanager_job_task_operator_reason_freshet_rejects_total{reason="malformed", …}

keeps this name instead of `freshet_rejects_total{reason="malformed"}`. The names are the same in thread and process
mode.

- Series of the job also have Flink's labels (`job_name`, `operator_name`, `subtask_index`, …), so sum over them: `sum
  by (job_name) (rate(freshet_events_total[5m]))`.
- Counters of the job begin at 0 with each start of a worker, and count records again that are read again after a
  failure. Exact figures are in receipts and in the audit trail.
- A histogram has cumulative buckets: `histogram_quantile(0.99, sum by (le)
  (rate(freshet_event_to_list_seconds_bucket[5m])))`. Flink's counters are integers, so `_sum` grows by whole seconds;
  what is left is added later. Take quantiles, or means over at least a minute of load.
- Histograms are updated once a second. In process mode, the metrics of an operator exist from its first record on,
  and a worker that waits for Redis hands on its metrics only when it goes on.
- No label holds a user or an item. Small counts still say when somebody withdrew: let only those read metrics who may
  know.
"""


def metrics_page() -> str:
    """The page, as Markdown."""
    flink = [f"| `{name}` | {meaning} |" for name, meaning in FLINK.items()]
    parts = [
        _INTRODUCTION,
        "## Of the job\n",
        _table(JOB),
        "## Of the gateway\n",
        _table(GATEWAY),
        "## Of Flink\n\nAlerts and dashboards also use these, under Flink's names and in its units.\n",
        "\n".join(["| metric | meaning |", "|---|---|", *flink]),
    ]
    return "\n".join(parts) + "\n"


def _table(metrics: Iterable[Metric]) -> str:
    rows = ["| metric | kind | unit | labels | of | meaning |", "|---|---|---|---|---|---|"]
    return "\n".join([*rows, *map(_row, metrics)]) + "\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    if metric.values:
        labels += ": " + ", ".join(f"`{value}`" for value in metric.values)
    cells = (f"`{metric.full_name}`", metric.kind, metric.unit, labels, metric.by, metric.meaning)
    return f"| {' | '.join(cells)} |"
