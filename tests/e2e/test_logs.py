"""Logs of a whole run: JSON lines of gateway, Flink and operators, found by request id, and without personal data.

The run has what goes wrong in logs: records that are no JSON, an item id that is a user's, a model that raises, and a
Redis that is away.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from schemas import topics
from tests.faults.test_model_faults import NAMES, RAISES, adopted
from tests.support.collector import Collector, collector
from tests.support.examples import cases
from tests.support.gateway import RunningGateway
from tests.support.live import Live, start_live, until
from tests.support.log_servers import GelfListener, opensearch, shipped, syslog_ng

USER = "planted-user-zqxj"
RAW = {
    "user": USER,
    "session": "planted-session-wvkq",
    "event": "planted-event-jqzw",
    "search": "planted search of kqjx",
    "request": "planted-request-xzvq",
    "body": "planted-body-qwxz",
}
"""What must be in no log, in no form."""
NOISE = ("currentSendTime", "Name collision", "TransactionManager", "ProducerConfig", "ConsumerConfig")


class Run(NamedTuple):
    live: Live
    gateway: RunningGateway
    collector: Collector

    @property
    def logs(self) -> Path:
        return self.live.stack.directory / "log"

    def lines(self) -> list[dict[str, Any]]:
        """All JSON lines of all processes."""
        return [json.loads(line) for _, line in self.texts() if line.startswith("{")]

    def texts(self) -> list[tuple[str, str]]:
        """(file, line) of all logs of Flink and the gateway."""
        files = [path for path in sorted(self.logs.iterdir()) if path.name.startswith(("gateway", "task", "jobm"))]
        return [(path.name, line) for path in files for line in path.read_text(errors="replace").splitlines()]

    def about(self, request: str) -> list[dict[str, Any]]:
        """The lines that name a request, by what is in place of its id."""
        return [line for line in self.lines() if line.get("http.request.id") == self.hidden(request)]

    def hidden(self, request: str) -> str:
        return self.live.pseudonymiser.request(request).hex()

    def post(self, request: str, **fields: Any) -> Any:
        event = json.loads(self.live.event(USER, **fields))
        return self.gateway.ask("POST", "/v1/events", "producer", json=event, headers={"X-Request-Id": request})


@pytest.fixture(scope="module", params=cases(["thread", "process"]))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp(f"logs-{request.param}")
    with collector(folder / "collector") as taking:
        yield from running(folder, request.param, taking)


def running(folder: Path, mode: str, taking: Collector) -> Iterator[Run]:
    traces = f'[traces]\notlp_url = "{taking.url}"\n'
    live = start_live(
        folder,
        flink_settings={"python.execution-mode": mode},
        model=adopted,
        more_settings='[logs]\nformat = "json"\n' + traces,
        log_format="json",
    )
    live.mode = mode
    try:
        kafka, tenant = live.settings.kafka.bootstrap_servers, str(live.settings.tenant)
        gateway = RunningGateway(folder / "gateway", live.product.endpoints["redis"], kafka, traces, default=tenant)
        os.link(folder / "gateway" / "gateway.log", folder / "log" / "gateway.log")
        try:
            go_wrong(found := Run(live, gateway, taking))
            yield found
        finally:
            gateway.close()
    finally:
        live.close()
        live.stack.stop()


def go_wrong(run: Run) -> None:
    live, ids = run.live, {"session_id": RAW["session"], "request_id": RAW["request"], "event_id": RAW["event"]}
    live.consent([USER])
    refused = run.post("planted-request-xzvq", item=USER, **ids)
    assert refused.status_code == 202, "the gateway leaves that to the job"
    torn = b'{"event_id": "%b", "user_id": "%b"' % (RAW["body"].encode(), USER.encode())
    live.send(topics.INTERACTIONS, [(USER.encode(), torn)])
    live.send(topics.CONSENTS, [(USER.encode(), torn)])
    live.consent([USER])
    for item in (NAMES[0], NAMES[RAISES - 1]):
        live.interact(
            USER, item, type="search", query=RAW["search"], **{**ids, "event_id": f"planted-event-jqzw{item}"}
        )
        live.interact(USER, item, query=RAW["search"], **{**ids, "event_id": f"planted-event-jqzw-{item}"})
    until(lambda: any("the model failed" in line["message"] for line in run.lines()), "a failing model")
    live.stack.kill_redis()
    run.gateway.get(f"/v1/recommendations/{USER}", **{"X-Request-Id": RAW["request"]})
    live.interact(USER, NAMES[1], **{**ids, "event_id": "planted-event-jqzw-away"})
    until(lambda: any("waiting up to" in line["message"] for line in run.lines()), "Redis to be missed")
    live.stack.start_redis()
    until(lambda: any("Redis answers again" in line["message"] for line in run.lines()), "Redis to be back")


def test_request_id_leads_from_the_gateway_to_the_operator(run: Run) -> None:
    def both() -> Any:
        found = run.about(RAW["request"])
        rejected = [line for line in found if line.get("event.reason") == "personal_item"]
        return rejected and [line for line in found if line["service.name"] == "freshet-gateway"] and rejected

    [line] = until(both, "the line of the operator")
    assert line["service.name"] == "freshet-job" and line["log.level"] == "WARN"
    assert line["kafka.topic"] == run.live.settings.kafka.topic(topics.INTERACTIONS)
    assert {"kafka.partition", "kafka.offset", "freshet.bucket", "freshet.job.name", "freshet.job.epoch"} <= set(line)
    assert line["freshet.request_id"] == run.hidden(RAW["request"]), "as clean events and exports have it"
    of_thread = ("personalise", 0) if run.live.mode == "thread" else (None, None)
    assert (line.get("freshet.operator"), line.get("freshet.subtask")) == of_thread
    [asked] = [one for one in run.about(RAW["request"]) if one.get("freshet.route") == "events"]
    assert asked["http.response.status_code"] == 202 and asked["freshet.tenant"] == "default"


def test_trace_leads_from_the_caller_to_the_list(run: Run) -> None:
    if run.collector.file is None:
        pytest.skip("not run: it needs a real collector, which `make collector` builds with Go")
    trace, caller = "a1" * 16, "b2" * 8
    user = f"{USER}-traced"  # the model fails for the other one
    run.live.consent([user])
    event = json.loads(run.live.event(user, NAMES[2]))
    headers = {"traceparent": f"00-{trace}-{caller}-01", "X-Request-Id": RAW["request"]}
    posted = run.gateway.ask("POST", "/v1/events", "producer", json=event, headers=headers)
    unsampled = {"traceparent": f"00-{'c3' * 16}-{caller}-00"}
    event = json.loads(run.live.event(user, NAMES[3]))
    run.gateway.ask("POST", "/v1/events", "producer", json=event, headers=unsampled)

    def both() -> Any:
        mine = {span["name"]: span for span in run.collector.spans() if span["traceId"] == trace}
        return len(mine) == 2 and mine

    spans = until(both, "the spans of gateway and job", 60)
    asked, written = spans["POST /v1/events"], spans["write list"]
    assert (asked["service"], asked["parentSpanId"]) == ("freshet-gateway", caller)
    assert (written["service"], written["parentSpanId"]) == ("freshet-job", asked["spanId"])
    assert written["attributes"]["freshet.list"] == "written"
    place = posted.json()["partition"], posted.json()["offset"]
    told = written["attributes"]
    assert (int(told["messaging.destination.partition.id"]), int(told["messaging.kafka.offset"])) == place
    assert int(asked["startTimeUnixNano"]) < int(written["endTimeUnixNano"])
    assert {span["traceId"] for span in run.collector.spans()} == {trace}, "nothing that was not sampled"
    text = json.dumps(run.collector.spans())
    assert not [what for what, raw in RAW.items() if raw in text] and run.hidden(RAW["request"]) not in text


def test_consents_carry_the_request_id_as_interactions_do(run: Run) -> None:
    change = {"user_id": USER, "level": "full", "ts": time.time_ns() // 1_000_000}
    headers = {"X-Request-Id": RAW["request"]}
    place = run.gateway.ask("POST", "/v1/consent", "producer", json=change, headers=headers).json()
    assert place["status"] == "acknowledged"
    records = run.live.consumer(topics.CONSENTS)
    found = until(
        lambda: [
            record.headers
            for batch in records.poll(200).values()
            for record in batch
            if (record.partition, record.offset) == (place["partition"], place["offset"])
        ],
        "the record of the consent",
        60,
    )
    assert found == [[("x-request-id", RAW["request"].encode())]]
    records.close()


def test_command_prints_what_logs_have_for_a_request_id(run: Run) -> None:
    command = [sys.executable, "-m", "freshet", "logs", "request-id", "--settings", str(run.live.product.settings_path)]
    done = subprocess.run([*command, RAW["request"]], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == run.hidden(RAW["request"])


def test_rejects_that_name_nobody_have_coordinates(run: Run) -> None:
    torn = [line for line in run.lines() if line.get("event.reason") == "malformed"]
    assert {line["kafka.topic"].rpartition(".")[2] for line in torn} >= {"interactions"}
    assert all(isinstance(line["kafka.offset"], int) for line in torn)


def test_every_line_is_json(run: Run) -> None:
    by_itself = re.compile(r"(?:OpenJDK|Java HotSpot|WARNING|SLF4J|Picked up|\s*$)")
    others = [(name, line) for name, line in run.texts() if not line.startswith("{") and not by_itself.match(line)]
    assert others == []
    for line in run.lines():
        assert {"@timestamp", "log.level", "message", "service.name", "log.logger"} <= set(line)
    assert {line["service.name"] for line in run.lines()} == {"flink", "freshet-job", "freshet-gateway"}


def test_noise_is_left_out(run: Run) -> None:
    noisy = [line for _, line in run.texts() if any(word in line for word in NOISE)]
    assert noisy == []


def forms(text: str) -> dict[str, bytes]:
    """How `text` may be hidden in a log: each as a part that does not depend on what is around it."""
    raw = text.encode()
    found = {
        "plain": raw,
        "utf-16": text.encode("utf-16-le"),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
    }
    found |= {"url": quote(text, safe="").encode(), "every byte": "".join(f"%{byte:02X}" for byte in raw).encode()}
    found |= {"json": "".join(f"\\u{ord(letter):04x}" for letter in text).encode(), "backwards": raw[::-1]}
    for shift in range(3):  # base64 of a longer text has it at one of three places
        middle = base64.b64encode(b"\0" * shift + raw)[(4 if shift else 0) : -4]
        found |= {f"base64 {shift}": middle, f"base64url {shift}": middle.translate(bytes.maketrans(b"+/", b"-_"))}
    for kind in ("md5", "sha1", "sha256"):
        digest = hashlib.new(kind, raw)
        found |= {kind: digest.hexdigest().encode(), f"{kind} base64": base64.b64encode(digest.digest()).rstrip(b"=")}
    return found


@pytest.mark.parametrize("form", sorted(forms("planted-user-zqxj")))
def test_search_finds_every_form(form: str) -> None:
    wrapped = {"base64 1": b"x", "base64url 1": b"x", "base64 2": b"xy", "base64url 2": b"xy"}
    if form in wrapped:
        line = base64.b64encode(wrapped[form] + USER.encode() + b"more")
    else:
        line = b"before " + forms(USER)[form] + b" after"
    assert forms(USER)[form] in line


@pytest.mark.privacy
def test_logs_hold_nothing_of_users_and_no_secret(run: Run) -> None:
    run.about(RAW["request"])
    ring = json.loads(Path(run.live.product.endpoints["key_ring"]).read_text())
    secrets = [ring["routing"], *(key for kids in ring["keys"].values() for key in kids.values())]
    wanted = {**RAW, **{f"key {number}": key for number, key in enumerate([*secrets, *run.gateway.keys.values()])}}
    wanted["pseudonym"] = run.live.pseudonymiser.user(USER)
    files = [path for path in run.logs.rglob("*") if path.is_file() and not path.name.startswith("redis")]
    assert len(files) > 4
    found = [
        (path.name, what, form)
        for path in files
        for content in [path.read_bytes()]
        for what, text in wanted.items()
        for form, part in forms(text).items()
        if part in content
    ]
    assert found == []


def test_shipped_logs_are_found_by_request_id_in_opensearch_and_graylog(run: Run, tmp_path: Path) -> None:
    syslog_ng()
    gelf, hidden = GelfListener(), run.hidden(RAW["request"])
    until(lambda: len(run.about(RAW["request"])) >= 2, "the lines of the request")
    wanted = {(line["service.name"], line["message"]) for line in run.about(RAW["request"])}
    with (
        opensearch(tmp_path / "opensearch") as client,
        shipped(run.logs, tmp_path / "state", str(client.base_url).rstrip("/"), gelf.port),
    ):

        def found() -> Any:
            client.post("/_refresh")
            query = {"size": 100, "query": {"term": {"http.request.id.keyword": hidden}}}
            answer = client.post("/freshet-logs-*/_search", json=query).json()
            sources = [hit["_source"] for hit in answer["hits"]["hits"]]
            return wanted <= {(one["service.name"], one["message"]) for one in sources} and sources

        until(found, "the request in OpenSearch", 60, pause_s=0.5)

        def told() -> Any:
            mine = [one for one in gelf.messages if one.get("_http.request.id") == hidden]
            return wanted <= {(one["_service.name"], one["short_message"]) for one in mine} and mine

        rejected = [
            one for one in until(told, "the request in GELF", 60) if one.get("_event.reason") == "personal_item"
        ]
        assert (rejected[0]["version"], rejected[0]["level"]) == ("1.1", 4) and rejected[0]["timestamp"] > 1.7e9
        flink = {"term": {"service.name.keyword": "flink"}}
        until(
            lambda: client.post("/freshet-logs-*/_search", json={"query": flink}).json()["hits"]["total"]["value"],
            "lines of Flink",
            60,
        )
    gelf.close()
