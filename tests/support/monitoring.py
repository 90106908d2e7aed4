"""A real Prometheus and Alertmanager on what deploy/prometheus and deploy/alerts ship, and the receiver of its alerts.

One substitution makes the rules quicker: each duration of a rule (`for:` and ranges in brackets) is divided by
:data:`FASTER`, and Prometheus scrapes each second. Expressions and thresholds stay as they are.
"""

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from deploy.local.paths import ROOT
from deploy.local.ports import LOOPBACK, free_port
from tests.support.gateway import RunningGateway
from tests.support.live import Live, until
from tests.support.scraping import PROMETHEUS, answers_at, reporter_ports

RULES = ROOT / "deploy" / "alerts" / "freshet.yml"
FASTER = 15
PROGRAMS = ("prometheus", "prometheus-alertmanager")
needs_prometheus = pytest.mark.skipif(
    any(shutil.which(program) is None for program in PROGRAMS),
    reason="Prometheus and Alertmanager (Debian: prometheus, prometheus-alertmanager) are not installed",
)
_DURATION = re.compile(r"(?<=\[)[0-9a-z]+(?=\])|(?<=for: )[0-9a-z]+")
_SIDES = re.compile(r" > [0-9.]+|\n(?:/|and|or|unless) ")
_SECONDS = {"s": 1, "m": 60, "h": 3_600}


def quicker(rules: str) -> str:
    """`rules` with each duration divided by :data:`FASTER`, but never below 1 s.

    >>> quicker("expr: rate(a[5m]) > 300\\nfor: 10s")
    'expr: rate(a[20s]) > 300\\nfor: 1s'
    """

    def shorter(found: re.Match[str]) -> str:
        return f"{max(1, int(found[0][:-1]) * _SECONDS[found[0][-1]] // FASTER)}s"

    return _DURATION.sub(shorter, rules)


class Told(NamedTuple):
    """What Alertmanager has told the receiver of an alert."""

    name: str
    key: str
    status: str
    summary: str
    at_s: float


class Monitoring:
    """Runs below `directory`, and watches `live` and a gateway. `rules` are quicker ones, or not."""

    def __init__(self, directory: Path, live: Live, gateway: RunningGateway, rules: str) -> None:
        self._directory, self._live, self._gateway = directory, live, gateway
        self.told: list[Told] = []
        self._hook = ThreadingHTTPServer((LOOPBACK, 0), _receiver(self.told))
        self.port, self._alertmanager = free_port(), free_port()
        self.client = httpx.Client(base_url=f"http://{LOOPBACK}:{self.port}", timeout=10, trust_env=False)
        self._processes: list[subprocess.Popen[bytes]] = []
        (directory / "rules.yml").write_text(rules)
        (directory / "gateway-api-key").write_text(gateway.keys["operator"])
        self.find_targets()
        (directory / "prometheus.yml").write_text(self._configuration())
        (directory / "alertmanager.yml").write_text(self._routes())

    def find_targets(self) -> None:
        """Have Prometheus scrape Flink's processes that run now."""
        ports = [port for port in reporter_ports(self._live.stack.directory) if answers_at(port)]
        targets = [{"targets": [f"{LOOPBACK}:{port}" for port in sorted(set(ports))]}]
        (self._directory / "flink.json.new").write_text(json.dumps(targets))
        (self._directory / "flink.json.new").rename(self._directory / "flink.json")

    def _configuration(self) -> str:
        """The shipped configuration, with the addresses of this stack."""
        config = yaml.safe_load(PROMETHEUS.read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = ["rules.yml"]
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"{LOOPBACK}:{self._alertmanager}"]
        flink, gateway = config["scrape_configs"]
        del flink["static_configs"]
        flink["file_sd_configs"] = [{"files": ["flink.json"], "refresh_interval": "1s"}]
        gateway["static_configs"][0]["targets"] = [f"{LOOPBACK}:{self._gateway.port}"]
        return yaml.safe_dump(config)

    def _routes(self) -> str:
        url = f"http://{LOOPBACK}:{self._hook.server_port}/"
        route = {"receiver": "hook", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        hook = {"name": "hook", "webhook_configs": [{"url": url, "send_resolved": True}]}
        return yaml.safe_dump({"route": route, "receivers": [hook]})

    def start(self) -> None:
        """Start, and wait until all targets are scraped."""
        threading.Thread(target=self._hook.serve_forever, daemon=True).start()
        self._run(
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={LOOPBACK}:{self.port}",
        )
        self._run(
            "prometheus-alertmanager",
            "--config.file=alertmanager.yml",
            "--storage.path=alertmanager",
            "--cluster.listen-address=",
            f"--web.listen-address={LOOPBACK}:{self._alertmanager}",
        )
        until(lambda: len(self.query("up == 1")) >= 3, "JobManager, TaskManager and gateway to be scraped", 60, 0.2)

    def _run(self, *command: str) -> None:
        with (self._directory / f"{command[0]}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, cwd=self._directory, stdout=log, stderr=log))

    def query(self, query: str) -> list[dict[str, Any]]:
        """The series that a query returns now; none if Prometheus does not answer yet."""
        try:
            response = self.client.post("/api/v1/query", data={"query": query})
        except httpx.TransportError:
            return []
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # it is starting
            return []
        answer = response.json()
        assert answer["status"] == "success", f"{query}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def returns(self, query: str) -> bool:
        """Whether a query of a dashboard returns series; `label_values(metric, label)` is Grafana's own."""
        metric = re.match(r"label_values\((.*), *\w+\)$", query)
        return bool(self.query(metric[1] if metric else query))

    def firing(self) -> set[str]:
        """The alerts that fire now, as the receiver knows them."""
        last = {told.key: told for told in list(self.told)}
        return {told.name for told in last.values() if told.status == "firing"}

    def wait_until_fired(self, names: set[str], deadline_s: float) -> None:
        """Wait until Alertmanager has told the receiver that each of `names` fires."""
        self._wait(lambda: names - {told.name for told in self.told if told.status == "firing"}, "to fire", deadline_s)

    def wait_until_resolved(self, names: set[str], deadline_s: float) -> None:
        """Wait until it has told that each of `names` is over."""
        self._wait(lambda: names & self.firing(), "to be resolved", deadline_s)

    def _wait(self, left: Any, what: str, deadline_s: float) -> None:
        try:
            until(lambda: not left(), what, deadline_s, 0.2)
        except AssertionError:
            alerts = self.client.get("/api/v1/alerts").json()["data"]["alerts"]
            states = {alert["labels"]["alertname"]: alert["state"] for alert in alerts}
            rules = {
                str(rule["alert"]): str(rule["expr"])
                for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
            }
            sides = {
                side: self.query(side) for name in left() for side in _SIDES.split(quicker(rules[name])) if side.strip()
            }
            raise AssertionError(
                f"waited {deadline_s:g} s for {sorted(left())} {what}; now: {states}; {sides}"
            ) from None

    def close(self) -> None:
        """Stop everything."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)
        self._hook.shutdown()
        self._hook.server_close()


@contextmanager
def monitored(directory: Path, live: Live, gateway: RunningGateway, rules: str) -> Iterator[Monitoring]:
    """Monitoring during the block."""
    monitoring = Monitoring(directory, live, gateway, rules)
    try:
        monitoring.start()
        yield monitoring
    finally:
        monitoring.close()


@contextmanager
def shopping(live: Live, gateway: RunningGateway, items: Sequence[str]) -> Iterator["Shoppers"]:
    """Shoppers during the block, who click `items`."""
    shoppers = Shoppers(live, gateway, items)
    shoppers.start()
    try:
        yield shoppers
    finally:
        shoppers.close()


class Shoppers:
    """A little traffic in the background: interactions, consents and reads."""

    def __init__(self, live: Live, gateway: RunningGateway, items: Sequence[str]) -> None:
        self._live, self._gateway, self._items = live, gateway, items
        self.users = [f"watched-{n}" for n in range(8)]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._click, self._read)]
        self.reads = self.clicks = 0
        self.clicks_on = 2
        """Of so many items that they see, they click one; 0: none."""

    def start(self) -> None:
        """Have them consent, and begin."""
        self._live.consent(self.users)
        for thread in self._threads:
            thread.start()

    def _click(self) -> None:
        while not self._ended.wait(0.1):
            user = self.users[self.clicks % len(self.users)]
            self._live.interact(user, self._items[self.clicks % len(self._items)])
            self._see(user)
            self.clicks += 1

    def _see(self, user: str) -> None:
        """See an item of the list; click every second one."""
        found = self._live.list_of(user)
        if found is None or not found.items or not found.recommendation_id:
            return
        place: dict[str, Any] = {"position": 0, "request_id": found.recommendation_id, "surface": "home"}
        self._live.interact(user, found.items[0].id, "impression", **place)
        if self.clicks_on and self.clicks % self.clicks_on == 0:
            self._live.interact(user, found.items[0].id, **place)

    def _read(self) -> None:
        while not self._ended.wait(0.1):
            with contextlib.suppress(Exception):  # while it is stopped
                self._gateway.get(f"/v1/recommendations/{self.users[self.reads % len(self.users)]}")
            self.reads += 1

    def close(self) -> None:
        """Have them leave."""
        self._ended.set()
        for thread in self._threads:
            thread.join(60)


def _receiver(told: list[Told]) -> type[BaseHTTPRequestHandler]:
    """Handles the webhook of Alertmanager."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in body["alerts"]:
                name, summary = alert["labels"]["alertname"], alert["annotations"]["summary"]
                told.append(Told(name, alert["fingerprint"], alert["status"], summary, time.monotonic()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Not to the console."""

    return Receiver
