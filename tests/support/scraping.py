"""Reads what Flink serves to Prometheus, under the names that deploy/prometheus/prometheus.yml gives."""

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from deploy.local.paths import ROOT
from tests.support.live import until

PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"
_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """A series and its value."""

    name: str
    labels: dict[str, str]
    value: float


def scraped(stack: Path) -> list[Sample]:
    """The metrics of all processes of the cluster in `stack`."""
    rename = renaming()
    return [
        Sample(rename(name), dict(_LABEL.findall(labels)), float(value))
        for port in reporter_ports(stack)
        for name, labels, value in _SAMPLE.findall(until(lambda port=port: answers_at(port), f"metrics on port {port}"))
    ]


def reporter_ports(stack: Path) -> list[int]:
    """The ports of Flink's reporters; the logs name them."""
    found = [
        re.findall(r"Started PrometheusReporter HTTP server on port (\d+)", log.read_text())
        for log in sorted((stack / "log").glob("*manager*.log"))
    ]
    return [int(port) for ports in found for port in ports]


def renaming() -> Callable[[str], str]:
    """The rule of prometheus.yml that renames metrics of Flink."""
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    [rule] = jobs["flink"]["metric_relabel_configs"]
    assert (rule["source_labels"], rule["target_label"]) == (["__name__"], "__name__")
    regex, name = re.compile(rule["regex"]), rule["replacement"].replace("$1", r"\1")

    def renamed(before: str) -> str:
        found = regex.fullmatch(before)
        return found.expand(name) if found else before

    return renamed


def answers_at(port: int) -> str | None:
    """What is served at this port, if anything is."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
    except OSError:
        return None
    return text
