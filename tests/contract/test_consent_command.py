"""Consents recorded by command take effect like those of a frontend, even while Kafka is unavailable."""

from pathlib import Path

import pytest

from adapters.secrets.key_rings import load_key_ring
from freshet.cli.main import run
from jobs.settings import load_settings
from schemas.pseudonyms import Pseudonymiser
from schemas.store import all_user_keys
from tests.support.redis_server import running_redis


@pytest.mark.privacy
@pytest.mark.parametrize(
    "command", [("consent", "withdraw"), ("consent", "record", "--level", "none"), ("erase", "user")]
)
def test_withdrawal_is_fenced_but_not_acknowledged_while_kafka_is_down(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.registration.load_for_opt_out", load_settings)  # which would ask Kafka first
    with running_redis(tmp_path) as redis:
        assert run(["keys", "new-key-ring", str(tmp_path / "ring.json")]) == 0
        path = tmp_path / "freshet.toml"
        path.write_text(
            f'kafka.bootstrap_servers = "127.0.0.1:1"\nredis.url = "{redis.url}"\nredis.prefix = "shop:"\n'
            f'model.directory = "/m"\nprivacy.key_ring = "{tmp_path / "ring.json"}"\n'
        )
        monkeypatch.setattr("sys.stdin", open_line(tmp_path, "ada"))
        assert run([*command, "--settings", str(path), "--user", "-"]) == 2
        told = capsys.readouterr()
        assert told.err.startswith("freshet: not done: ") and "ada" not in told.err + told.out
        name = Pseudonymiser(load_key_ring(str(tmp_path / "ring.json"))).user("ada")
        client = redis.store_client("shop:")
        try:
            [found] = client.ask_each(("EXISTS", *all_user_keys("shop:", name)))
            assert found[0] >= 1, "the fence stands"
        finally:
            client.close()


def open_line(folder: Path, line: str):
    """A standard input that contains one line."""
    (folder / "stdin").write_text(f"{line}\n")
    return (folder / "stdin").open()
