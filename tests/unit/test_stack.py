"""The local stack, as far as it can be tested without starting it."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from adapters.waiting import until
from deploy.flink_profiles import Demand, State, config_yaml
from deploy.local import commands, flink_config, gateway_product, ports, product, stack
from deploy.local.errors import JarError, ProcessDiedError, StackError
from deploy.local.escaping import check_directory, toml_of
from deploy.local.fetch_jars import verify
from deploy.local.files import tail, write_atomically
from deploy.local.java import Java
from deploy.local.paths import FLINK_CONF, SUMS
from deploy.local.processes import MARKER, ProcessRecord, ProcessTable
from deploy.local.stack import LocalStack, is_up
from freshet.cli.main import run
from jobs.settings import load_settings
from schemas.errors import NotReadyError

SLEEP = [sys.executable, "-c", "import time; print('asleep', flush=True); time.sleep(60)"]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@pytest.fixture
def table(tmp_path):
    table = ProcessTable(tmp_path)
    yield table
    table.end(table.records(), grace_s=0)


def has_printed(record, word):
    return lambda: word in tail_of(record)


def make(*words, **environment):
    """The output of `make`, run as from a shell, also when `make test` runs these tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", *words],
        cwd=FLINK_CONF.parent,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def tail_of(record):
    return Path(record.log).read_text()


def test_our_flink_defaults_are_flat_and_keep_the_stock_java_options():
    settings = flink_config.read_flat(FLINK_CONF.read_text())
    assert settings["python.execution-mode"] == "thread"
    assert settings["taskmanager.numberOfTaskSlots"] == "1"
    assert "--add-opens=java.base/java.util=ALL-UNNAMED" in settings["env.java.opts.all"]


def test_override_replaces_the_default_once():
    rendered = flink_config.render("heartbeat.timeout: 8 s\nrest.port: 8081", {"heartbeat.timeout": "3 s", "a.b": "c"})
    assert rendered.splitlines() == ['heartbeat.timeout: "3 s"', 'rest.port: "8081"', 'a.b: "c"']


def test_yaml_in_a_value_is_quoted():
    assert flink_config.render("", {"key": 'yes: "no" # or'}) == 'key: "yes: \\"no\\" # or"\n'


@pytest.mark.parametrize("text", ["taskmanager:\n  numberOfTaskSlots: 1", "a: 1\na: 2", "no colon", "empty: "])
def test_nested_configuration_is_refused_with_its_line(text):
    with pytest.raises(StackError, match=r"line [12]"):
        flink_config.read_flat(text)


def test_all_parts_listen_on_loopback(tmp_path):
    settings = flink_config.place_settings(tmp_path, 1, 2, "python")
    hosts = {value for key, value in settings.items() if key.endswith(("host", "address"))}
    assert hosts == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a:b", "a colon"),
        ("Smith, John", "a comma"),
        ("a;b", "a semicolon"),
        ("a\\b", "a backslash"),
        ("it's", "a single quotation mark"),
        ("${HOME}", "a placeholder"),
        ("two\nlines", "a control character"),
        ("shop \N{SHOPPING TROLLEY}", "an emoji"),
    ],
)
def test_folder_java_cannot_handle_is_refused_before_start(tmp_path, name, words):
    with pytest.raises(StackError, match=f"{words}.*move or rename the folder"):
        LocalStack(tmp_path / name).start()
    assert list(tmp_path.iterdir()) == []


def test_python_and_java_must_agree_on_file_name_encoding(tmp_path):
    check_directory(tmp_path, "iso-8859-9")
    with pytest.raises(StackError, match="PYTHONUTF8=1"):
        check_directory(tmp_path / "josÃ©", "iso-8859-9")


def test_make_sets_python_utf8_mode():
    probe = """probe: ; @$(PYTHON) -c 'import sys; print(sys.getfilesystemencoding())'"""
    said = make(f"--eval={probe}", "probe", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert said == "utf-8\n"


@pytest.mark.parametrize("name", ["my shop (1)", "josé", "100% & $HOME", 'a "quote"', "#1?", "Ελλάδα", "日本"])
def test_realistic_folder_names_are_accepted(tmp_path, name):
    check_directory(tmp_path / name)


@pytest.mark.parametrize("name", ['a "b" \\ c', "josé", "shop \N{SHOPPING TROLLEY}", "del\x7f"])
def test_settings_round_trip_paths(tmp_path, name):
    path = tmp_path / name / "freshet.toml"
    write_atomically(path, product.settings_text(LocalStack(tmp_path), tmp_path / name / "ring", tmp_path / name))
    settings = load_settings(path)
    assert (settings.model.directory, settings.privacy.key_ring) == (
        str(tmp_path / name),
        str(tmp_path / name / "ring"),
    )
    tenant = path.with_name("tenant.toml")
    text = tomllib.loads(gateway_product.settings_text("redis://x", "x", path, 1, str(tenant)))
    assert (text["auth"]["jwks"], text["tenants"]["default"]) == (str(path), str(tenant))
    write_atomically(tenant, f"key_ring = {toml_of(name)}")
    write_atomically(path, product.settings_text(LocalStack(tmp_path), tmp_path, tmp_path, tenant))
    assert load_settings(path).privacy.key_ring == str(tmp_path / name / name)


def test_stack_is_locale_independent(table, monkeypatch):
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    assert table.environment({})["LC_ALL"] == "C.UTF-8"
    command = Java(table.directory).command("kafka", [], [], ["kafka.Kafka"])
    assert {"-Duser.language=en", "-Duser.country=US"} <= set(command)
    assert "-Duser.language=en" in flink_config.read_flat(FLINK_CONF.read_text())["env.java.opts.all"].split()


def test_make_model_handles_spaces_and_quotes():
    words = ["--file", "my file.csv", "--out", "it's mine"]
    recipe = make("--dry-run", "--assume-old=setup", "model", f"ARGS={shlex.join(words)}")
    line = recipe.replace(".venv/bin/python", "shown")
    said = subprocess.run(
        ["bash", "-c", f"shown() {{ printf '%s\\n' \"$@\"; }}; {line}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == ["-m", "freshet", "model", "train", *words]


def test_ports_are_free_and_unique():
    given = [ports.free_port() for _ in range(50)]
    assert len(set(given)) == 50
    assert not any(ports.is_listening(port) for port in given)


def test_process_is_recorded_found_and_ended(table, tmp_path):
    table.start("sleeper", SLEEP, {})
    elsewhere = ProcessTable(tmp_path)
    assert is_up(tmp_path)
    assert elsewhere.record("sleeper").is_running()
    elsewhere.end(elsewhere.records(), grace_s=5)
    assert not is_up(tmp_path)
    assert elsewhere.records() == []


def test_reused_process_id_is_left_alone(tmp_path):
    with subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL) as stranger:
        reused = ProcessRecord("kafka", stranger.pid, time.time() - 3600, str(tmp_path / "kafka.out"))
        assert not reused.is_running()
        ProcessTable(tmp_path).end([reused], grace_s=0)
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_that_ignores_term_is_killed_after_the_grace_period(table):
    record = table.start("stubborn", [sys.executable, "-c", STUBBORN], {})
    until(has_printed(record, "deaf"), "the handler", 5)
    table.end([record], grace_s=0.2)
    assert not record.is_running()


def test_process_counts_as_running_until_its_last_thread_has_released_the_port(table):
    code = (
        "import ctypes, socket, threading, time\n"
        "listening = socket.create_server(('127.0.0.1', 0))\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('asleep', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    record = table.start("half-ended", [sys.executable, "-c", code], {})
    until(has_printed(record, "asleep"), "the thread", 5)
    process = record.process()
    until(lambda: process.status() == "zombie", "the main thread to end", 5)
    assert record.is_running()
    table.kill(record)
    assert not record.is_running()


def test_started_process_does_not_receive_the_terminals_interrupt(table):
    record = table.start("sleeper", SLEEP, {})
    assert os.getsid(record.pid) == record.pid != os.getsid(0)


def test_orphaned_children_are_reaped(table):
    code = f"import subprocess, time; subprocess.Popen({SLEEP!r}); time.sleep(60)"
    record = table.start("parent", [sys.executable, "-c", code], {})
    until(has_printed(record, "asleep"), "the child", 5)
    assert len(table.unrecorded()) == 1
    table.kill(record)
    assert table.unrecorded() == []


def test_orphaned_process_is_found_by_its_inherited_marker(table, tmp_path):
    code = f"import subprocess; subprocess.Popen({SLEEP!r})"
    record = table.start("parent", [sys.executable, "-c", code], {})
    until(lambda: not record.is_running(), "the parent to end", 5)
    until(has_printed(record, "asleep"), "the child", 5)
    (orphan,) = table.unrecorded()
    assert orphan.environ()[MARKER] == str(tmp_path)
    LocalStack(tmp_path).stop()
    assert table.unrecorded() == []


def test_dead_process_error_shows_its_log_tail(table):
    record = table.start("kafka", [sys.executable, "-c", "raise SystemExit('no space left')"], {})
    until(lambda: not record.is_running(), "its end", 5)
    with pytest.raises(ProcessDiedError, match=r"(?s)kafka ended.*no space left.*kafka\.out"):
        table.check_running(record)


def test_up_restarts_an_ended_redis_with_its_data_and_names_parts_it_cannot_restart(
    table, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(commands, "LOCAL", tmp_path)
    running = begun_stack(table, "jobmanager", "kafka", "taskmanager-1")
    running.start_redis()
    address = ("127.0.0.1", running.redis.port)
    assert b"+OK" in asked(address, b"SET kept 1\r\n")
    commands.up(1, with_job=False)
    assert "it is up already" in capsys.readouterr().err
    for name, code in (("redis", SLEEP), ("taskmanager-1", [sys.executable, "-c", ""])):
        record = table.record(name) or table.start(name, code, {})
        kill_and_wait(record)
    commands.up(1, with_job=False)
    told = capsys.readouterr().err
    assert "redis had ended and runs again, with its data" in told
    assert "taskmanager-1 cannot be started again without losing state: `freshet down`" in told
    assert b"1" in asked(address, b"GET kept\r\n")
    assert running.ended() == ["taskmanager-1"]


def begun_stack(table, *names):
    """A stack whose components are sleeping processes."""
    for name in names:
        table.start(name, SLEEP, {})
    write_atomically(table.directory / "run" / "ports", json.dumps({name: ports.free_port() for name in stack._PORTS}))
    return LocalStack(table.directory)


def test_stack_keeps_its_state_backend_until_it_is_down(table, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "LOCAL", tmp_path)
    begun_stack(table, *commands.PARTS)
    write_atomically(tmp_path / "flink" / "conf" / "config.yaml", config_yaml(Demand(State.HEAP)))
    with pytest.raises(StackError, match="with --state heap: `freshet down` ends it and deletes its state"):
        commands.up(1, with_job=False, state="rocksdb")


def test_interrupted_start_does_not_count_as_a_running_stack(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "LOCAL", tmp_path)
    begun_stack(table, "redis", "kafka")
    assert run(["status"]) == 1
    assert "jobmanager     NEVER STARTED" in capsys.readouterr().out
    with pytest.raises(StackError, match=r"before jobmanager, taskmanager-1: `freshet down`, then `freshet up`"):
        commands.up(1, with_job=True)


def test_missing_job_or_gateway_is_a_finding_of_status(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "LOCAL", tmp_path)
    begun_stack(table, *commands.PARTS)
    assert run(["status"]) == 0, "a stack of `freshet up --no-job`"
    write_atomically(tmp_path / commands.WITH_JOB, "")
    assert run(["status"]) == 1
    assert "gateway        NEVER STARTED" in capsys.readouterr().out
    table.start("gateway", SLEEP, {})
    assert run(["status"]) == 1
    out = capsys.readouterr().out
    assert "job            unknown" in out and "The job does not run" in out


def test_second_up_is_refused_while_the_first_is_starting(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "LOCAL", tmp_path)
    with commands._one_at_a_time(), pytest.raises(StackError, match="under way"):
        commands.up(1, with_job=True)


def test_down_deletes_the_token_and_says_what_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "LOCAL", tmp_path)
    for name in ("authorization", "jwks.json", "key-ring.json", "signing-key"):
        write_atomically(tmp_path / name, "x")
    commands.down()
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"key-ring.json", "signing-key"}
    assert f"kept below {tmp_path.name}: key-ring.json, signing-key\n" in capsys.readouterr().err


def asked(address, line):
    with socket.create_connection(address, 5) as connection:
        connection.sendall(line)
        return connection.recv(64)


def kill_and_wait(record):
    """Kill it as a crash does: the record stays."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGKILL)
    until(lambda: not record.is_running(), "its end", 5)


def test_stopping_a_stopped_stack_is_harmless(tmp_path):
    LocalStack(tmp_path).stop()
    LocalStack(tmp_path).stop()


def test_attaching_without_a_stack_is_refused(tmp_path):
    with pytest.raises(StackError, match="no stack is up"):
        LocalStack.attach(tmp_path)


def test_endpoints_hold_addresses_and_product_entries(tmp_path):
    stack = LocalStack(tmp_path)
    stack.publish_endpoints(topic_prefix="local")
    endpoints = json.loads(stack.endpoints_path.read_text())
    assert endpoints["redis"].startswith("redis://127.0.0.1:")
    assert endpoints["flink"].startswith("http://127.0.0.1:")
    assert endpoints["topic_prefix"] == "local"


def test_timeout_names_what_was_awaited():
    with pytest.raises(NotReadyError, match=r"(?s)for the moon.*it is day"):
        until(lambda: False, "the moon", timeout_s=0.01, every_s=0.001, explain=lambda: "it is day")


@pytest.fixture
def pinned(tmp_path):
    jars = tmp_path / "jars"
    (jars / "kafka").mkdir(parents=True)
    (jars / "kafka" / "a.jar").write_bytes(b"hello")
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{digest}  kafka/a.jar\n")
    return jars, sums


def test_pinned_jars_are_accepted(pinned):
    assert verify(*pinned) == 1


def test_a_changed_jar_is_refused_by_name(pinned):
    (pinned[0] / "kafka" / "a.jar").write_bytes(b"hello!")
    with pytest.raises(JarError, match=r"kafka/a\.jar has sha256 .* refused"):
        verify(*pinned)


def test_a_missing_jar_is_refused_by_name(pinned):
    (pinned[0] / "kafka" / "a.jar").unlink()
    with pytest.raises(JarError, match=r"kafka/a\.jar is missing"):
        verify(*pinned)


def test_unpinned_jar_is_refused_by_name(pinned):
    (pinned[0] / "kafka" / "b.jar").write_bytes(b"who?")
    with pytest.raises(JarError, match=r"kafka/b\.jar is not in SHA256SUMS"):
        verify(*pinned)


def test_the_broker_and_the_connector_are_pinned():
    text = SUMS.read_text()
    assert "kafka/kafka_2.13-" in text
    assert "flink/flink-sql-connector-kafka-" in text


def test_the_tail_of_a_long_log_is_short(tmp_path):
    log = tmp_path / "a.log"
    write_atomically(log, "".join(f"line {n}\n" for n in range(10_000)))
    assert tail(log, lines=2) == "line 9998\nline 9999"


def test_processes_do_not_inherit_pythonpath(table, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/a/checkout/of/another/release")
    record = table.start(
        "shown", [sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'), flush=True)"], {}
    )
    until(lambda: tail_of(record), "what it inherited", timeout_s=30)
    assert tail_of(record) == "None\n"


ENDED_BY = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
PLAYED = """
import signal, sys, deploy.local.commands as commands, freshet.cli.main as m
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(one, signal.default_int_handler)
def work(*given, **named):
    deferred, number = sys.argv[3:]
    if deferred == "deferred":
        given[1].deferred = True
    try:
        signal.raise_signal(int(number))
    finally:
        signal.raise_signal(int(number))
        print("cleaned", file=sys.stderr)
commands.up = commands.down = work
if sys.argv[1] == "demo":
    import deploy.demo.show as show
    show._run = work
sys.exit(m.run(sys.argv[1:2]))
"""


def played(command, number, when="at once"):
    words = [sys.executable, "-c", PLAYED, command, "-", when, str(int(number))]
    done = subprocess.run(words, cwd=FLINK_CONF.parent, capture_output=True, text=True)
    assert "cleaned" in done.stderr, done.stderr
    return done.returncode


@pytest.mark.parametrize("command", ["up", "down", "demo"])
@pytest.mark.parametrize("number", ENDED_BY)
def test_signal_sets_the_exit_code_and_does_not_interrupt_the_cleanup(command, number):
    assert played(command, number) == ENDED_BY[number]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_running_demo_ends_with_0_only_by_ctrl_c(number, code):
    assert played("demo", number, "deferred") == code


def test_start_behind_nohup_ignores_sighup():
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from deploy.local.commands import *\n"
    code += "with interrupted_once(): signal.raise_signal(signal.SIGHUP); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], cwd=FLINK_CONF.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "still here\n")


class StackWithoutGateway(LocalStack):
    def start_gateway(self, settings):
        assert settings.exists()


def test_token_of_the_local_gateway_is_in_its_header_file_only(tmp_path):
    local = StackWithoutGateway(tmp_path)
    settings = tmp_path / "freshet.toml"
    settings.write_text(product.settings_text(local, tmp_path / "ring", None))
    gateway_product.start_gateway(local, product.Product({"redis": "r"}, load_settings(settings), settings, "7"))
    header = tmp_path / "authorization"
    token = header.read_text().split()[-1]
    assert len(token) > 100 and header.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and token in path.read_text()] == [header.name]
    printed = "\n".join(commands.describe_stack(commands.Status({"gateway": True}, {"gateway": 7}, local.endpoints())))
    assert token not in printed and str(header) in printed


def test_status_during_a_start_does_not_call_missing_parts_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "LOCAL", tmp_path)
    assert not commands._is_starting()
    with commands._one_at_a_time():
        assert commands._is_starting()
        found = commands.Status({"redis": True, "kafka": False}, {"redis": 7}, {}, None, commands._is_starting())
        assert "under way" in commands.describe_stack(found)[-1]
    assert not commands._is_starting()
    assert "has ended" in commands.describe_stack(found._replace(starting=False))[-1]
