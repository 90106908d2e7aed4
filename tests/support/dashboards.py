"""Parses the queries of the Grafana dashboards: their metrics and labels."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).parents[2] / "deploy" / "dashboards"
LABELS_OF_PROMETHEUS = {"job", "instance"}
"""Those that Prometheus itself adds to what it reads."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_LABEL_VALUES = re.compile(r"^label_values\((.*), *(\w+)\)$")
_SELECTOR = re.compile(r"\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_METRIC = re.compile(r"(?<![\w.])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def queries(of: str = "") -> Iterator[str]:
    """Every query of every panel and variable, of all dashboards or one."""
    for name, dashboard in dashboards().items():
        if of not in ("", name):
            continue
        for panel in dashboard["panels"]:
            yield from (target["expr"] for target in panel["targets"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield variable["query"]["query"]


def names_in(query: str) -> tuple[set[str], set[str]]:
    """The metrics and labels in a PromQL query; `label_values(metric, label)` of Grafana counts as a query."""
    labels: set[str] = set()
    if asked := _LABEL_VALUES.match(query):
        query = asked[1]
        labels.add(asked[2])
    query = _STRING.sub('""', query)
    for found in (*_SELECTOR.findall(query), *_GROUPING.findall(query)):
        labels |= set(re.findall(r"[a-zA-Z_]\w*", found))
    bare = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub("", _SELECTOR.sub("", query)))
    return {name for name in _METRIC.findall(bare) if name not in _WORDS}, labels


def filled_in(query: str) -> str:
    """A query as Grafana sends it, with all values of its variables and short ranges."""
    query = query.replace("$__rate_interval", "20s").replace("$__range", "1m")
    return re.sub(r"\$\w+", ".*", query)
