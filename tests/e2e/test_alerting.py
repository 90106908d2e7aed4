"""What operators look at, on the shared stack: dashboards, alerts and the commands of the runbook.

`make alerts` causes the faults of all alerts (tests/faults/test_alert_campaign.py); three are caused here.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import topics
from tests.support.dashboards import filled_in, queries
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.live import Live, until
from tests.support.monitoring import RULES, Monitoring, monitored, needs_prometheus, quicker, shopping
from tests.support.runbook import commands_of_alerts, run_command

pytestmark = needs_prometheus


@pytest.fixture(scope="module")
def gateway(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    kafka, tenant = live.settings.kafka.bootstrap_servers, str(live.settings.tenant)
    folder, redis = tmp_path_factory.mktemp("gateway"), live.product.endpoints["redis"]
    with running_gateway(folder, redis, kafka=kafka, default=tenant) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def monitoring(live: Live, gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    rules, folder = quicker(RULES.read_text()), tmp_path_factory.mktemp("monitoring")
    items = [f"item-{number:05d}" for number in range(1, 60)]
    with shopping(live, gateway, items), monitored(folder, live, gateway, rules) as monitoring:
        yield monitoring


def test_every_query_of_every_dashboard_returns_series(live: Live, monitoring: Monitoring) -> None:
    asked = [filled_in(query) for query in queries()]
    assert len(asked) > 40
    empty = set(asked)

    def all_return() -> bool:
        empty.difference_update([query for query in empty if monitoring.returns(query)])
        return not empty

    try:
        until(all_return, "series", 60, 0.5)
    except AssertionError:
        raise AssertionError(f"no series for {sorted(empty)}") from None


def test_three_alerts_fire_and_resolve(live: Live, gateway: RunningGateway, monitoring: Monitoring) -> None:
    [redis] = [record.process() for record in live.stack.processes() if record.name == "redis"]
    assert redis is not None
    expected = {"FreshetRedisUnavailable", "FreshetGatewayPopularOnly", "FreshetRejectsHigh"}
    live.send(topics.INTERACTIONS, [(b"garbage", b"{")] * 400)
    monitoring.wait_until_fired({"FreshetRejectsHigh"}, 60)
    redis.suspend()
    try:
        monitoring.wait_until_fired(expected, 60)
    finally:
        redis.resume()
    monitoring.wait_until_resolved(expected, 90)


def test_commands_of_the_runbook_run(
    live: Live, gateway: RunningGateway, monitoring: Monitoring, tmp_path: Path
) -> None:
    names = {
        "http://prometheus:9090": f"http://127.0.0.1:{monitoring.port}",
        "http://flink:8081": live.product.endpoints["flink"],
        "http://localhost:8080": gateway.base,
        "freshet.toml": str(live.product.settings_path),
    }
    commands = commands_of_alerts()
    assert len(commands) > 20
    for command in sorted(commands):
        run_command(command, names, tmp_path)
