"""Checks a deployment before and between submissions, and says how to fix problems (`freshet doctor`).

Each check is one that submission makes, or one whose failure would only show while the job runs. The only write is one
record to the compacted topic `deployment`: its append time shows the broker's clock, and nothing reads it.
"""

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal, NamedTuple

from kafka.errors import KafkaError

from adapters.flink.rest import FlinkRest
from adapters.kafka.opening import open_producer
from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.reading import open_consumer
from adapters.redis.client import RedisClient, connect
from adapters.redis.fitness import check_rights, fitness
from adapters.secrets.key_rings import load_key_ring
from adapters.secrets.signing_keys import load_signing_key
from jobs.checks import check_topics
from jobs.clock import clock_ms
from jobs.operators_jar import operators_jar
from jobs.registration import load_for_submission
from jobs.remote_model import check_remote
from jobs.savepoints import running_job
from jobs.settings import Settings, load_policy, load_settings
from models.scorer import Scorer
from schemas import topics
from schemas.errors import FreshetError, NoJobError, SettingsError, StoreUnavailable

Verdict = Literal["ok", "note", "mend", "skipped"]
REQUIREMENTS: Final = Path(__file__).parents[1] / "requirements.txt"
PYTHONS: Final = ((3, 11), (3, 12))
JAVA_LEAST: Final = 17
CLOCK_OFF_MAX_MS: Final = 5_000
"""More than NTP-synchronised machines differ, and less than any time limit in the rules."""
CLOCK_KEY: Final = b"doctor"
ANSWER_S: Final = 10.0
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)
_INCLUDED: Final = re.compile(r"^-r (\S+)", re.MULTILINE)
_JAVA: Final = re.compile(r'version "(\d+)')


class CheckResult(NamedTuple):
    """The finding of one check: `text` describes the state, or the problem and its fix. A `note` is not a problem."""

    what: str
    verdict: Verdict
    text: str


def run_checks(path: Path, flink: str | None) -> list[CheckResult]:
    """Run every check of the deployment with the settings in `path`, and of Flink if its URL is given."""
    found = [run_check("python", python), run_check("packages", packages), run_check("java", java)]
    found.append(run_check("operators", operators))
    try:
        settings = load_settings(path)
    except FreshetError as error:
        return [*found, CheckResult("settings", "mend", str(error))]
    found += [CheckResult("settings", "ok", str(path)), *_check_files(settings), *_check_redis(settings)]
    return [*found, *_check_kafka(path, settings), *_check_flink(settings, flink)]


def run_check(what: str, check: Callable[[], str]) -> CheckResult:
    """Run `check`, which raises if something must be fixed."""
    try:
        return CheckResult(what, "ok", check())
    except FreshetError as error:
        return CheckResult(what, "mend", str(error))
    except KafkaError as error:
        return CheckResult(what, "mend", f"Kafka did not do what was asked: {type(error).__name__}")


def python() -> str:
    """Return the version of this Python; the workers need the same."""
    own = sys.version_info[:2]
    if own not in PYTHONS:
        raise SettingsError(f"this is Python {own[0]}.{own[1]}, and PyFlink needs 3.11 or 3.12: make setup PYTHON3=…")
    return f"{own[0]}.{own[1]}, {sys.executable}"


def packages() -> str:
    """Check that the versions pinned in requirements.txt, and in the files it includes, are installed."""
    pins = pinned(REQUIREMENTS)
    if wrong := differing(pins, {name: _installed(name) for name in pins}):
        raise SettingsError(f"{'; '.join(wrong)}: install requirements.txt (`make setup`)")
    return f"{len(pins)} as requirements.txt pins them"


def pinned(requirements: Path) -> dict[str, str]:
    """Name → version of the pins in a requirements file and the files that it includes."""
    text = requirements.read_text(encoding="utf-8")
    pins = dict(_PIN.findall(text))
    for included in _INCLUDED.findall(text):
        pins |= pinned(requirements.parent / included)
    return pins


def differing(pins: dict[str, str], installed: dict[str, str | None]) -> list[str]:
    """List the packages that are not installed as pinned.

    >>> differing({"redis": "5.3.1", "lz4": "4.4.5"}, {"redis": "6.0.0", "lz4": None})
    ['redis is 6.0.0, not 5.3.1', 'lz4 is not installed']
    """
    return [
        f"{name} is not installed" if (found := installed[name]) is None else f"{name} is {found}, not {pin}"
        for name, pin in pins.items()
        if installed[name] != pin
    ]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def java() -> str:
    """Return the version of the Java that Flink's client would start."""
    executable = shutil.which("java")
    if executable is None:
        raise SettingsError(f"java is not on PATH: install Java {JAVA_LEAST}")
    output = subprocess.run([executable, "-version"], capture_output=True, text=True, check=False).stderr
    found = _JAVA.search(output)
    if found is None or int(found.group(1)) < JAVA_LEAST:
        raise SettingsError(f"{executable} is not Java {JAVA_LEAST} or later: install that, and put it first on PATH")
    return f"{found.group(1)}, {executable}"


def operators() -> str:
    """Check that the Java operators are built, from these sources."""
    operators_jar()
    return "the operators in Java are built"


def _check_files(settings: Settings) -> Iterable[CheckResult]:
    privacy, audit = settings.privacy, settings.audit
    yield run_check(
        "key ring", lambda: _check_key(privacy.key_ring, lambda: f"key {load_key_ring(privacy.key_ring).current}")
    )
    yield run_check(
        "signing key", lambda: _check_key(audit.signing_key, lambda: load_signing_key(audit.signing_key).id)
    )
    yield run_check("policy", lambda: _check_policy(settings))
    yield run_check("model", lambda: _check_model(settings.model.frozen_directory()))
    if settings.model.remote.url is not None:
        yield run_check("remote model", lambda: check_remote(settings.model.remote))


def _check_model(directory: Path | None) -> str:
    return "online: learns in the stream" if directory is None else Scorer.open(directory).manifest.name


def _check_key(path: str | None, load: Callable[[], str]) -> str:
    name = load()
    if path is not None and Path(path).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"{path} is readable or writable by others: chmod 600 {path}")
    return name


def _check_policy(settings: Settings) -> str:
    load_policy(settings.privacy.policy)
    return settings.privacy.policy or "none: consents mean what they say"


def _check_redis(settings: Settings) -> list[CheckResult]:
    client = connect(settings.redis)
    try:
        found = fitness(client)
        rights = run_check("redis rights", lambda: _check_rights(client))
    except FreshetError as error:
        why = f"{error}: see that redis.url (or urls) answers" if isinstance(error, StoreUnavailable) else str(error)
        return [CheckResult("redis", "mend", why)]
    finally:
        client.close()
    weak: Verdict = "mend" if settings.redis.persistence == "required" else "note"
    findings = [
        *(CheckResult("redis", "mend", line) for line in found.wrong),
        *(CheckResult("redis", weak, it) for it in found.weak),
    ]
    return [*(findings or [CheckResult("redis", "ok", "evicts nothing, and has an append-only file")]), rights]


def _check_rights(client: RedisClient) -> str:
    check_rights(client)
    return "the job's commands are allowed"


def _check_kafka(path: Path, settings: Settings) -> Iterable[CheckResult]:
    reached = run_check("kafka", lambda: _reach_kafka(settings))
    yield reached
    checks = {
        "topics": lambda: _check_topics(settings),
        "clock": lambda: describe_clock_offset(*_measure_times(settings)),
        "deployment": lambda: _check_deployment(path),
    }
    for what, check in checks.items():
        yield (
            run_check(what, check) if reached.verdict == "ok" else CheckResult(what, "skipped", "Kafka is not reached")
        )


def _reach_kafka(settings: Settings) -> str:
    require_reachable_broker(settings.kafka)
    open_consumer(settings.kafka).close()
    return settings.kafka.bootstrap_servers


def _check_topics(settings: Settings) -> str:
    check_topics(settings)
    return f"{len(topics.TOPICS)}, with the retention and the time stamps that are promised"


def _measure_times(settings: Settings) -> tuple[int, int, int]:
    """When a record was sent, appended (by the broker's clock), and acknowledged, in ms."""
    producer = open_producer(settings.kafka)
    try:
        begun = clock_ms()
        sent = producer.send(settings.kafka.topic(topics.DEPLOYMENT), key=CLOCK_KEY, value=b"{}")
        return begun, int(sent.get(ANSWER_S).timestamp), clock_ms()
    finally:
        producer.close(ANSWER_S)


def describe_clock_offset(sent_ms: int, appended_ms: int, acknowledged_ms: int) -> str:
    """Say how far, at least, the local clock is from the broker's.

    >>> describe_clock_offset(1_000, 1_010, 1_020), describe_clock_offset(1_000, 400, 1_020)
    ("with the broker's", "600 ms ahead of the broker's")
    """
    ahead, behind = sent_ms - appended_ms, appended_ms - acknowledged_ms
    off = max(ahead, behind, 0)
    text = f"{off} ms {'ahead of' if ahead > 0 else 'behind'} the broker's" if off else "with the broker's"
    if off > CLOCK_OFF_MAX_MS:
        raise SettingsError(f"the local clock is {text}: synchronise both with NTP")
    return text


def _check_deployment(path: Path) -> str:
    load_for_submission(path)
    return "these settings are those of the last submission, if there was one"


def _check_flink(settings: Settings, flink: str | None) -> Iterable[CheckResult]:
    if flink is None:
        yield CheckResult("flink", "skipped", "say where it is with --flink")
        return
    reached = run_check("flink", lambda: _check_version(flink))
    yield reached
    if reached.verdict == "ok":
        yield _find_job(flink, settings.job.name)


def _check_version(flink: str) -> str:
    theirs, own = str(FlinkRest(flink).get("/config")["flink-version"]), version("apache-flink")
    if theirs.split(".")[:2] != own.split(".")[:2]:
        raise SettingsError(
            f"Flink at {flink} is {theirs}, and apache-flink here is {own}: install one version of both"
        )
    overview = FlinkRest(flink).get("/overview")
    if not overview["taskmanagers"]:
        raise SettingsError(f"Flink at {flink} has no TaskManager: start one, with one slot")
    return f"{theirs}, {overview['taskmanagers']} TaskManagers, {overview['slots-available']} slots free"


def _find_job(flink: str, name: str) -> CheckResult:
    try:
        return CheckResult("job", "ok", f"{running_job(flink, name)} runs")
    except NoJobError as error:  # perhaps it has not been submitted yet
        return CheckResult("job", "note", str(error))
    except FreshetError as error:
        return CheckResult("job", "mend", str(error))
