"""Where each documented command runs: on one running stack, as typed, or in the test that is named here."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx
import pytest

from deploy.local.ports import LOOPBACK, free_port
from freshet.cli.main import run
from tests.support.documented import ROOT
from tests.support.live import Live, until
from tests.support.models import plain_model

USER: Final = "ada-of-the-documentation"
READ: Final = 'curl -H "X-API-Key: KEY" "http://localhost:8080/v1/recommendations/ada?n=5"'
ERASE: Final = 'curl -X DELETE -H "X-API-Key: KEY" "http://localhost:8080/v1/users/ada"'
GATEWAY: Final = "freshet gateway run --settings gateway.toml"
VERIFY: Final = (
    "freshet erase verify --settings freshet.toml --user - "
    "--flink http://localhost:8081 --snapshots SNAPSHOTS --export EXPORT"
)

WALKED: Final = (
    "freshet keys new-key-ring key-ring.json",
    "freshet keys new-signing-key signing-key",
    "freshet topics --settings freshet.toml",
    "freshet flink-conf --state rocksdb",
    "freshet flink-conf --state rocksdb --users 1000000 --task-managers 2",
    "freshet doctor --settings freshet.toml --flink http://flink:8081",
    "freshet retention --settings freshet.toml",
    "freshet logs request-id --settings freshet.toml 7f3a9c2e-1b6d-4b0a-9a51-0c9e6d1f2a44",
    "freshet gateway new-api-key --file api-keys.json --id shop --role frontend --role producer",
    GATEWAY,
    READ,
    'curl -H "X-API-Key: KEY" "http://localhost:8080/v1/users/ada/recently-viewed?n=5"',
    'curl -H "X-API-Key: KEY" "http://localhost:8080/v1/users/ada/buy-again?n=5"',
    'curl -H "X-API-Key: KEY" "http://localhost:8080/v1/items/tea/similar?n=5"',
    'curl -H "X-API-Key: KEY" "http://localhost:8080/v1/trending?n=5"',
    'curl -H "X-API-Key: KEY" "http://localhost:8080/v1/popular?category=tea&n=5"',
    "freshet rebuild --settings freshet.toml",
    "freshet export write --settings freshet.toml --out EXPORT",
    "freshet export write --settings freshet.toml --out MEASURE --purpose measure",
    'freshet explain --settings freshet.toml --user - --role merchandiser --purpose "shelf 3"',
    'freshet access --settings freshet.toml --user - --role officer --purpose "request 47"',
    "freshet gateway new-api-key --file api-keys.json --id officer --role privacy",
    ERASE,
    "freshet erase user --settings freshet.toml --user -",
    "freshet erase rewrite-events --settings freshet.toml",
    "freshet export rewrite EXPORT --settings freshet.toml",
    VERIFY,
    "freshet erase purge-consents --settings freshet.toml",
    "freshet audit public-key --settings freshet.toml",
    "freshet audit verify --settings freshet.toml",
    "freshet audit verify --settings freshet.toml --public-key HEX",
    "freshet audit save-heads --settings freshet.toml --out heads.jsonl",
    "freshet audit verify --settings freshet.toml --heads heads.jsonl",
    "freshet report --settings freshet.toml --from 2026-01-01 --to 2026-02-01 --out REPORT",
    "freshet model check mine.onnx --items items.txt",
    "freshet model adopt mine.onnx --items items.txt --name mine-1 --out MODEL",
    "freshet model train --help",
    "freshet demo --help",
)
"""What `tests/e2e/test_documented_commands.py` runs, in this order."""

REPORTED: Final = "freshet model evaluate FILE --report report.html"

EVALUATED: Final = (
    "freshet model evaluate u.data --column-names user_id,item_id,rating,ts --every rating --at-least rating=4",
    "freshet model evaluate ratings.dat --user 1 --item 2 --time 4 --every rating",
    "freshet model evaluate yoochoose-clicks.dat --user 1 --item 3 --time 2 --every click",
    "freshet model evaluate ml-100k.inter --time timestamp --every rating",
    "freshet model evaluate events.csv --user visitorid --item itemid --time timestamp --kind event "
    "--kinds addtocart=add_to_cart,transaction=purchase",
)

ROLLED_OUT: Final = (
    "freshet model push model --licence CC-BY-4.0 --settings freshet.toml",
    "freshet model list --settings freshet.toml",
    "freshet model activate shop-7 --settings freshet.toml",
    "freshet model rollback --settings freshet.toml",
    "freshet model canary shop-7 --percent 5 --settings freshet.toml",
    "freshet model arms checkout-7 --arm a=online:50 --arm b=shop-7:50 --settings freshet.toml",
)

ELSEWHERE: Final = {
    "freshet up": "tests/e2e/test_paths.py",
    "freshet up --more FILE": "tests/e2e/test_paths.py",
    "freshet up --state rocksdb": "tests/e2e/test_paths.py",
    "freshet status": "tests/e2e/test_paths.py",
    "freshet replay FILE --type-constant click": "tests/e2e/test_paths.py",
    "freshet down": "tests/e2e/test_paths.py",
    **dict.fromkeys(EVALUATED, "tests/unit/test_public_files.py"),
    REPORTED: "tests/unit/test_evaluate_online.py",
    "freshet model online --settings freshet.toml": "tests/e2e/test_online_model.py",
    **dict.fromkeys(ROLLED_OUT, "tests/e2e/test_rollout.py"),
    "freshet model off-policy MEASURE --model model": "tests/e2e/test_exploring.py",
    "freshet model relearn --settings freshet.toml": "tests/e2e/test_online_model.py",
    "freshet submit --settings freshet.toml --flink http://flink:8081": "tests/e2e/test_submission.py",
    "freshet upgrade --settings freshet.toml --flink http://flink:8081 --savepoints s3://bucket/savepoints -p 2": (
        "tests/e2e/test_submission.py"
    ),
    "freshet rebucket --settings freshet.toml --from s3://state/savepoint-1 --to s3://state/eight --buckets 8": (
        "tests/faults/test_rebucket.py"
    ),
    "freshet submit --settings freshet.toml --flink http://flink:8081 --savepoint s3://state/eight": (
        "tests/e2e/test_submission.py"
    ),
    "freshet state check --settings freshet.toml --flink http://flink:8081 --from SAVEPOINT": (
        "tests/e2e/test_submission.py"
    ),
    "freshet take-over --settings freshet.toml --flink http://flink:8081 --savepoints s3://bucket/savepoints -p 2": (
        "tests/faults/test_take_over.py"
    ),
    "freshet take-over --settings freshet.toml --flink http://flink:8081 --from-start --mode process": (
        "tests/faults/test_take_over.py"
    ),
    "freshet map test --settings freshet.toml events.jsonl": "tests/unit/test_map_command.py",
    "freshet topics --settings freshet.toml --alter": "tests/contract/test_topic_lives.py",
    "freshet rotate start --settings freshet.toml": "tests/faults/test_rotation.py",
    "freshet rotate relink --settings freshet.toml": "tests/faults/test_rotation.py",
    "freshet rotate show --settings freshet.toml": "tests/faults/test_rotation.py",
    "freshet rotate end --settings freshet.toml": "tests/faults/test_rotation.py",
}
"""Commands that stop or change the stack that others share, and the test that runs each."""

PARSED: Final = {
    "freshet model adopt mine.onnx --items items.txt --name mine-1 --out MODEL --evaluate later.jsonl": (
        "tests/unit/test_model_adopt.py runs it with files of its own"
    ),
    "freshet demo --replay FILE": "needs a terminal and a stack of its own for minutes",
    "freshet bench run --only buckets": "half an hour",
    "freshet bench models --only shadow": "ten minutes",
}
"""Commands that no test runs, and why; the parser of the command line takes them."""

FINDINGS_ALLOWED: Final = ("doctor", "audit")
"""Commands that may exit with 1 on a local stack whose topics other tests have written to."""


class Walk:
    """A folder with the files that the documentation names, next to a running stack."""

    def __init__(self, live: Live, folder: Path) -> None:
        self.live, self.folder = live, folder
        self.key = self.public_key = ""
        self.gateway: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        settings = live.product.settings_path.read_text()
        (folder / "freshet.toml").write_text(settings)
        (folder / "tenant.toml").write_text((ROOT / "deploy" / "tenant.toml").read_text())
        (folder / "mine.onnx").write_bytes(onnx_bytes())
        (folder / "items.txt").write_text("".join(f"item-{row}\n" for row in range(1, 31)))
        (folder / "SNAPSHOTS").symlink_to(live.stack.directory / "flink" / "checkpoints")

    def names(self) -> Mapping[str, str]:
        """Maps the example addresses and names of the documentation to those of this stack."""
        flink = self.live.product.endpoints["flink"]
        return {
            "http://flink:8081": flink,
            "http://localhost:8081": flink,
            "http://localhost:8080": f"http://{LOOPBACK}:{self.port}",
            "redis://localhost:6379/0": self.live.product.endpoints["redis"],
            "localhost:9092": self.live.settings.kafka.bootstrap_servers,
            "users/ada": f"users/{USER}",
            "recommendations/ada": f"recommendations/{USER}",
            '"ada"': f'"{USER}"',
            "Key: KEY": f"Key: {self.key}",
            "HEX": self.public_key,
        }

    def here(self, text: str) -> str:
        """A documented text with this stack's names."""
        for name, real in self.names().items():
            text = text.replace(name, real)
        return text

    def type(self, line: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """Run a documented line in this folder; returns what a terminal would show."""
        if line == GATEWAY:
            return self._serve()
        words = shlex.split(self.here(line))
        if words[0] == "curl":
            return subprocess.run(words, cwd=self.folder, check=True, capture_output=True, text=True).stdout
        monkeypatch.chdir(self.folder)
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{USER}\n"))
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            code = run(words[1:])
        assert code == 0 or (code == 1 and words[1] in FINDINGS_ALLOWED), f"{line}: {code}\n{shown.getvalue()}"
        self._remember(words, shown.getvalue().strip())
        return shown.getvalue()

    def _remember(self, words: list[str], shown: str) -> None:
        if "new-api-key" in words:
            self.key = shown
            self._wait_until_the_key_opens()
        elif "public-key" in words:
            self.public_key = shown
        elif "new-key-ring" in words:  # from here on, that of the job
            (self.folder / "key-ring.json").unlink()
            (self.folder / "key-ring.json").symlink_to(self.live.product.endpoints["key_ring"])

    def _wait_until_the_key_opens(self) -> None:
        if self.gateway is not None:
            until(lambda: self._status() != "401", "the new key")

    def _status(self) -> str:
        """The status of a request with the most recent key."""
        ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X-API-Key: {self.key}"]
        url = f"http://{LOOPBACK}:{self.port}/openapi.json"
        return subprocess.run([*ask, url], check=False, capture_output=True, text=True).stdout

    def _serve(self) -> str:
        """Start the gateway with `deploy/gateway.toml`, the documented example, and this stack's addresses."""
        text = self.here((ROOT / "deploy" / "gateway.toml").read_text())
        for setting, value in {"host": f'"{LOOPBACK}"', "port": str(self.port), "workers": "1"}.items():
            text, changed = re.subn(rf"(?m)^{setting} = .*$", f"{setting} = {value}", text)
            assert changed == 1, setting
        (self.folder / "gateway.toml").write_text(text)
        words = [sys.executable, "-m", "freshet", *shlex.split(GATEWAY)[1:]]
        with (self.folder / "gateway.log").open("wb") as log:
            self.gateway = subprocess.Popen(
                words, cwd=self.folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, stdout=log, stderr=log
            )
        until(lambda: self._status() == "200", "the gateway", 60)
        return ""

    def close(self) -> None:
        """Stop the gateway."""
        if self.gateway is not None:
            self.gateway.terminate()
            self.gateway.wait(30)


def onnx_bytes() -> bytes:
    """A user's own model."""
    model: onnx.ModelProto = plain_model(30)
    return model.SerializeToString()
