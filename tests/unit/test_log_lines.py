"""Log lines: JSON with names of ECS, text with the same fields, no exception's text, and a limit for repeated lines."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.kafka.settings import KafkaSettings
from adapters.log_output import REPEATED_MAX, RepeatLimit, log_from_worker, log_to_stderr
from adapters.redis.address import RedisSettings
from jobs.personalise import gate_opening
from jobs.settings import AuditSettings, JobSettings, ModelSettings, PrivacySettings, Settings
from schemas.log_lines import JsonLines, LogSettings, TextLines, add_to_log_lines
from schemas.threads import in_background

SERVICE = {"service.name": "freshet-job", "freshet.job.epoch": 7}


def a_record(text: str = "a record was rejected (%s)", *args: Any, level: int = logging.WARNING, **more: Any) -> Any:
    record = logging.LogRecord("udfs.ingest", level, "/somewhere/ingest.py", 3, text, args or ("malformed",), None)
    vars(record).update({name.replace("__", "."): value for name, value in more.items()})
    return record


def raised(error: Exception) -> Any:
    try:
        raise error
    except type(error):
        return sys.exc_info()


@pytest.fixture
def own_logging() -> Iterator[None]:
    """What a test sets up is taken down again."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_line_is_one_json_object_with_names_of_ecs() -> None:
    line = JsonLines(SERVICE).format(a_record(kafka__topic="interactions", kafka__offset=12, http__request__id=None))
    read = json.loads(line)
    assert "\n" not in line
    assert read.pop("@timestamp").endswith("Z")
    assert read == {
        "log.level": "WARN", "message": "a record was rejected (malformed)", "ecs.version": "1.2.0",
        "service.name": "freshet-job", "freshet.job.epoch": 7, "log.logger": "udfs.ingest",
        "process.thread.name": "MainThread", "kafka.topic": "interactions", "kafka.offset": 12,
    }  # fmt: skip


def test_line_breaks_of_a_message_do_not_break_the_line() -> None:
    line = JsonLines(SERVICE).format(a_record("two\nlines %s"))
    assert "\n" not in line and json.loads(line)["message"] == "two\nlines malformed"


@pytest.mark.parametrize("lines", [JsonLines(SERVICE), TextLines(), TextLines(timed=False)])
def test_no_line_has_the_text_of_an_exception(lines: logging.Formatter) -> None:
    record = a_record()
    record.exc_info = raised(KeyError("ada@example.org"))
    line = lines.format(record)
    assert "KeyError" in line and "ada" not in line and "Traceback" not in line


def test_text_has_the_fields_behind_the_message() -> None:
    line = TextLines().format(a_record(kafka__partition=1, kafka__offset=12))
    assert line.endswith("WARN  udfs.ingest - a record was rejected (malformed) kafka.partition=1 kafka.offset=12")


def test_fields_of_a_context_stay_in_it() -> None:
    found: list[str] = []

    def operator(name: str) -> None:
        add_to_log_lines({"freshet.operator": name})
        in_background("worker", lambda: found.append(JsonLines(SERVICE).format(a_record()))).join()

    for name in ("ingest", "personalise"):
        in_background(name, operator, name).join()
    assert [json.loads(line)["freshet.operator"] for line in found] == ["ingest", "personalise"]
    assert "freshet.operator" not in JsonLines(SERVICE).format(a_record())


def test_repeated_lines_are_limited_and_counted() -> None:
    clock = [0.0]
    limit = RepeatLimit(clock_s=lambda: clock[0])
    passed = [limit.filter(a_record("a record was rejected (%s)", str(number))) for number in range(100)]
    assert passed == [True] * REPEATED_MAX + [False] * 90
    assert limit.filter(a_record("another text")), "each text has a limit of its own"
    clock[0] = 60.0
    told = a_record()
    assert limit.filter(told) and vars(told)["freshet.suppressed"] == 90
    clock[0] = 120.0
    again = a_record()
    assert limit.filter(again) and "freshet.suppressed" not in vars(again)


def test_repeated_reasons_do_not_hide_others() -> None:
    limit = RepeatLimit(1)
    reasons = ["malformed", "malformed", "too_late"]
    assert [limit.filter(a_record(event__reason=reason)) for reason in reasons] == [True, False, True]


def test_worker_writes_json_to_standard_error(own_logging: None, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.clear()
    log_from_worker("json", SERVICE)
    log_from_worker("json", SERVICE)  # by the next operator
    logging.getLogger("udfs.ingest").info("began")
    logging.getLogger("kafka.client").warning("connection failed")
    written = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in written] == ["began"], "once, and nothing of Kafka's client"


def beam_handler(taken: list[str]) -> Callable[[], logging.Handler]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert not record.exc_info, "the handler would send the traceback"
            taken.append(self.format(record))

    Handler.__module__ = "apache_beam.runners.worker.log_handler"
    return Handler


@pytest.mark.parametrize("format", ["json", "text"])
def test_worker_process_hands_lines_without_traceback_to_flink(own_logging: None, format: Any) -> None:
    taken: list[str] = []
    logging.getLogger().handlers[:] = [beam_handler(taken)()]
    log_from_worker(format, SERVICE)
    try:
        raise KeyError("ada@example.org")
    except KeyError:
        logging.getLogger("udfs.ingest").exception("failed", extra={"kafka.offset": 3})
    [line] = taken
    assert line.startswith('{"@timestamp": ' if format == "json" else "udfs.ingest - failed kafka.offset=3")
    assert "KeyError" in line and "ada" not in line


def test_worker_with_feedback_or_judge_alone_has_a_log(
    own_logging: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = Settings(
        KafkaSettings("nowhere:1"),
        RedisSettings(("redis://nowhere:1",)),
        ModelSettings(),
        privacy=PrivacySettings(str(tmp_path / "ring.json")),
        audit=AuditSettings(str(tmp_path / "key")),
        job=JobSettings(name="shop"),
        logs=LogSettings("json"),
    )
    gate_opening(settings, 7, False)()
    logging.getLogger("udfs.feedback").warning("feedback cannot be read")
    [line] = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["service.name"], line["freshet.job.name"], line["freshet.job.epoch"]) == ("freshet-job", "shop", 7)


def test_logging_to_standard_error_replaces_what_was_set_up(
    own_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        log_to_stderr("json", SERVICE)
    logging.getLogger("jobs.checks").warning("once")
    assert len(capsys.readouterr().err.splitlines()) == 1
