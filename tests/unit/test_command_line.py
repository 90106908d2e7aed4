"""The command `freshet`: each command has help and a valid example, and all share one set of exit codes."""

import ast
import doctest
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

import freshet
from adapters.files.export_parts import MANIFEST, read_manifest
from adapters.secrets.key_rings import load_key_ring, new_key_ring, write_key_ring
from adapters.secrets.signing_keys import write_signing_key
from deploy.demo.endpoints import load_endpoints
from deploy.demo.table import Mapping
from freshet.cli import consent, file_options, gateway, report, shape
from freshet.cli.main import MODULES, run
from jobs.settings import load_policy
from models import adopt
from models.cost import REPEATS
from models.interactions import Columns
from models.transitions import TrainingSettings as ModelSettings
from privacy.rotation import RotationStatus
from privacy.rules.suppression import K_LEAST
from schemas.consents import PURPOSES
from schemas.errors import ExportError, KafkaUnreachable, SettingsError, StackError, StoreUnavailable
from serving.gateway.api_keys import add_api_key
from serving.gateway.roles import ROLES
from serving.gateway.security import read_api_keys

ROOT = Path(__file__).parents[2]
TREE = typer.main.get_command(shape.root)


def commands(node: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every executable command, with the words that name it."""
    children = getattr(node, "commands", None)
    if children is None:
        yield words, node
    for name, child in (children or {}).items():
        yield from commands(child, (*words, name))


ROOMS = ("privacy", "models", "evaluation", "serving", "adapters", "jobs", "bench", "deploy")
ENTRIES: tuple[str, ...] = (
    "jobs/personalise.py",
    "bench/ablated_job.py",
    "bench/bare.py",
    "bench/listener.py",
    "bench/load.py",
    "deploy/documentation/__main__.py",
    "deploy/local/build_operators.py",
    "deploy/local/fetch_jars.py",
    "deploy/local/record_classes.py",
    "deploy/local/recorded_job.py",
    "deploy/local/supervise.py",
    "deploy/publish_schemas.py",
)
"""What no user of Freshet calls: Flink, make, benchmarks (as processes of their own) and contributors do."""
ALL = dict(commands(TREE))
NAMES = [" ".join(words) for words in ALL]


def parsed(words: list[str]) -> Any:
    """The context of the command that `words` name, with parsed options; nothing is run."""
    node, context, left = TREE, None, ["freshet", *words]
    while True:
        name, *left = left
        context = node.make_context(name, list(left), context)
        if getattr(node, "commands", None) is None:
            return context
        node = node.commands[left[0]]


@pytest.mark.parametrize("words", ALL, ids=NAMES)
def test_every_command_has_help_and_an_example_that_parses(words: tuple[str, ...]) -> None:
    command = ALL[words]
    assert command.help and command.get_short_help_str(200)
    assert command.epilog and command.epilog.startswith(shape.EXAMPLE)
    example = shlex.split(command.epilog.removeprefix(shape.EXAMPLE))
    assert example[: len(words) + 1] == ["freshet", *words]
    assert parsed(example[1:]).command is command
    for parameter in command.params:
        assert parameter.name == "help" or parameter.help, f"{parameter.name} is not explained"


@pytest.mark.parametrize("words", ALL, ids=NAMES)
def test_help_is_printed_and_an_unknown_option_is_a_usage_error(words: tuple[str, ...], capsys) -> None:
    assert run([*words, "--help"]) == 0
    assert "Example: freshet" in capsys.readouterr().out
    assert run([*words, "--no-such-option"]) == 64
    said = capsys.readouterr().err
    assert said.startswith("freshet: not understood: ") and f"`freshet {' '.join(words)} --help`" in said


def test_usage_error_has_its_own_exit_code(capsys) -> None:
    assert run(["no-such-command"]) == 64
    assert run([]) == 64
    assert "Usage: freshet" in capsys.readouterr().err
    assert run(["export", "write", "--settings", "s", "--out", "x", "--purpose", "sell"]) == 64


def test_every_command_module_is_registered() -> None:
    shared = {"__init__", "bars", "file_options", "main", "shape"}
    files = {path.stem for path in (ROOT / "freshet" / "cli").glob("*.py")} - shared
    assert files == {module.__name__.rpartition(".")[2] for module in MODULES}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SettingsError("topic x does not exist"), "topic x does not exist"),
        (KafkaTimeoutError("x"), "Kafka did not answer in time (KafkaTimeoutError): `freshet doctor"),
        (TopicAuthorizationFailedError("x"), "Kafka refused a request (TopicAuthorizationFailedError): its user may"),
        (KafkaUnreachable("no answer"), "no answer; `freshet doctor --settings …` checks all settings"),
        (StoreUnavailable("no answer"), "no answer; `freshet doctor --settings …` checks Redis and Kafka"),
        (FileExistsError(17, "File exists", "ring"), "ring already exists and is not overwritten"),
        (PermissionError(13, "Permission denied", "out"), "out: Permission denied"),
    ],
)
def test_failure_is_reported_on_one_line(error, said, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def write(path: Path) -> None:
        raise error

    monkeypatch.setattr("adapters.secrets.signing_keys.write_signing_key", write)
    assert run(["keys", "new-signing-key", "key"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"freshet: not done: {said}") and told.count("\n") == 1


@pytest.mark.parametrize("name", ["", "-", "."])
@pytest.mark.parametrize("key", ["new-key-ring", "new-signing-key"])
def test_a_key_needs_the_name_of_a_file(key: str, name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["keys", key, name]) == 64
    assert "name a file" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["replay"], ["demo", "--replay"]], ids=" ".join)
def test_missing_file_is_reported_before_missing_options(words: list[str], tmp_path: Path, capsys) -> None:
    missing = str(tmp_path / "nope.csv")
    assert run([*words, missing]) == 2
    assert capsys.readouterr().err == f"freshet: not done: {missing}: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replay", "f.csv"], "give the kind of the rows"),
        (["--replay", "f.csv", "--type-constant", "clack"], "clack is not a kind"),
        (["--replay", "f.csv", "--type-constant", "click", "--item", "sku"], "sku"),
        (["--replay", "f.csv", "--type-constant", "click", "--follow", "bob"], "f.csv has no row of this user"),
        (["--replay", ".", "--type-constant", "click"], ". is a folder: name a file"),
        (["--user", "customer"], "options of a file do nothing without --replay FILE"),
        (["--follow", "ada"], "options of a file do nothing without --replay FILE"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_demo_refuses_a_file_or_its_options_before_it_starts_anything(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("deploy.demo.show.LocalStack", lambda *_, **__: pytest.fail("a stack was started"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.csv").write_text("user_id,item_id,ts\nada,tea,1764000000\n")
    assert run(["demo", *words]) in (2, 64)
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_key_is_written_and_never_overwritten(tmp_path: Path, capsys) -> None:
    for name in ("new-key-ring", "new-signing-key"):
        assert run(["keys", name, str(tmp_path / name)]) == 0
        written = (tmp_path / name).read_bytes()
        assert run(["keys", name, str(tmp_path / name)]) == 2
        assert (tmp_path / name).read_bytes() == written
    assert "is not overwritten" in capsys.readouterr().err


def test_silent_kafka_is_given_up_within_seconds(tmp_path: Path, capsys) -> None:
    """For a Kafka that refuses connections, see `test_kafka_listening.py`."""
    assert run(["keys", "new-key-ring", str(tmp_path / "ring")]) == 0
    settings = tmp_path / "freshet.toml"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings.write_text(
            f'kafka.bootstrap_servers = "127.0.0.1:{port}"\nredis.url = "redis://127.0.0.1:{port}/0"\n'
            f'model.directory = "/m"\nprivacy.key_ring = "{tmp_path / "ring"}"\n'
        )
        begun = time.monotonic()
        assert run(["erase", "rewrite-events", "--settings", str(settings)]) == 2
    assert time.monotonic() - begun < 8, "five seconds, and kafka-python's own bound is thirty"
    assert f"Kafka at 127.0.0.1:{port} does not answer" in capsys.readouterr().err


COMMANDS_OF_ONE = [
    words
    for words, one in ALL.items()
    if any(option.metavar == "ID" and option.name == "user" for option in one.params)
]


def test_user_is_read_from_standard_input_with_any_line_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("ada", "ada\n", "ada\r\n", "\r\nada\r\n\r\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text, newline=""))
        assert shape.read_user_id("-") == "ada", text


@pytest.mark.parametrize("words", COMMANDS_OF_ONE, ids=map(" ".join, COMMANDS_OF_ONE))
@pytest.mark.parametrize("text", ["ada\neve\n", "ada\n\neve", "ada\r\neve\r\n"])
def test_several_users_on_standard_input_are_refused(words, text, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text, newline=""))
    required = {"settings": "s", "user": "-", "level": "none", "role": "officer", "purpose": "request 47"}
    names = [one.name for one in ALL[words].params if one.required]
    more = ["--flink", "http://f"] if words == ("erase", "verify") else []
    assert run([*words, *more, *(word for name in names for word in (f"--{name}", required[name]))]) == 64
    assert "one user per call" in capsys.readouterr().err


PAST_MS = 1_700_000_000_000


@pytest.mark.privacy
@pytest.mark.parametrize(
    "words",
    [
        ("--expires-at", "-5"),
        ("--expires-at", "9" * 20),
        ("--expires-at", str(PAST_MS)),
        ("--jurisdiction", "x\x1b[31m"),
        ("--jurisdiction", ""),
        ("--method", "x" * 65),
        ("--notice-version", "x" * 65),
        ("--method", "\ud800"),
        ("--denied", "train", "--granted", "train"),
        ("--user", "a\x1b"),
        ("--user", "x" * 257),
    ],
    ids=lambda words: ascii(" ".join(words)[:40]),
)
def test_mistyped_option_of_a_consent_is_a_usage_error_and_records_nothing(words, monkeypatch, capsys) -> None:
    def load(path: Path) -> None:
        raise SettingsError("the settings were loaded, so the consent would be recorded")

    monkeypatch.setattr("jobs.registration.load_for_opt_out", load)
    line = ["consent", "record", "--settings", "s", "--user", "ada", "--level", "full"]
    assert run([*line, "--granted", "train", "--jurisdiction", "EU", "--expires-at", str(2 * PAST_MS)]) == 2
    capsys.readouterr()
    assert run([*line, *words]) == 64
    told = capsys.readouterr().err
    assert words[0] in told and "not done" not in told and "\x1b" not in told
    if words[0] in ("--method", "--user"):
        assert run(["consent", "withdraw", "--settings", "s", "--user", "ada", *words]) == 64
        assert words[0] in capsys.readouterr().err


def test_rotation_is_shown_as_an_object_with_names(monkeypatch, capsys) -> None:
    monkeypatch.setattr("jobs.registration.load_deployed", lambda path: None)
    monkeypatch.setattr("privacy.rotation.rotation_status", lambda loaded: RotationStatus(2, 1, {"2": 7}, None))
    assert run(["rotate", "show", "--settings", "s", "--json"]) == 0
    shown = {"current": 2, "previous": 1, "users": {"2": 7}, "why_not_ended": None}
    assert json.loads(capsys.readouterr().out) == shown


ERASE_VERIFY = ["erase", "verify", "--settings", "s", "--user", "ada", "--flink", "http://127.0.0.1:1", "--timeout-s"]


@pytest.mark.parametrize(
    "line",
    [
        *([*ERASE_VERIFY, number] for number in ("nan", "inf", "-1", "0")),
        ["replay", "f.csv", "--speed", "nan"],
        ["replay", "f.csv", "--consent-share", "nan"],
        ["demo", "--shoppers", "9" * 11],
        ["bench", "read", "--overload-s", "nan"],
        ["model", "cost", "--items", "9" * 11],
    ],
    ids=" ".join,
)
def test_number_out_of_bounds_is_a_usage_error(line: list[str]) -> None:
    with pytest.raises(typer.TyperException) as refused:
        parsed(line)
    assert line[-2] in refused.value.format_message()


NO_NAMES = ["", " ", "\u3000", "\x00", "a\nb", "\u202e", "a\u202eb", "\u200b", "x" * 129]


@pytest.mark.parametrize("option", ["--role", "--purpose"])
@pytest.mark.parametrize("text", NO_NAMES, ids=ascii)
def test_access_requires_visible_role_and_purpose(option, text, capsys) -> None:
    given = {"--settings": "s", "--user": "ada", "--role": "officer", "--purpose": "request 47"} | {option: text}
    assert run(["access", *(word for pair in given.items() for word in pair)]) == 64
    assert f"{option}" in capsys.readouterr().err


NEW_API_KEY = ["gateway", "new-api-key", "--role", "frontend", "--file"]


@pytest.mark.parametrize("days", ["nan", "inf", "-inf", "-1", "0", "1e305"])
def test_api_key_days_must_be_a_positive_number(days: str, tmp_path: Path, capsys) -> None:
    assert run([*NEW_API_KEY, str(tmp_path / "keys.json"), "--id", "shop", "--days", days]) == 64
    assert "--days" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("id", ["", " ", "a\nb", "a\x00", "\u202e", "x" * 65], ids=ascii)
def test_api_key_id_must_be_readable(id: str, tmp_path: Path, capsys) -> None:
    assert run([*NEW_API_KEY, str(tmp_path / "keys.json"), "--id", id]) == 64
    assert "--id" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("tenant", ["", " ", "../..\x1b[31m", "x" * 257, "\ud800"], ids=ascii)
def test_tenant_of_an_api_key_must_be_readable(tenant: str, tmp_path: Path, capsys) -> None:
    assert run([*NEW_API_KEY, str(tmp_path / "keys.json"), "--id", "shop", "--tenant", tenant]) == 64
    assert "--tenant" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_api_key_is_added_to_the_file_that_a_link_names(tmp_path: Path, capsys) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "keys.json", tmp_path / "link.json"
    link.symlink_to(target)
    for id in ("first", "second"):  # the first one creates the target
        assert run([*NEW_API_KEY, str(link), "--id", id]) == 0
        assert link.is_symlink() and id in {one.id for one in read_api_keys(str(target)).values()}
    assert [path.name for path in target.parent.iterdir()] == [target.name], "no draft is left"
    link.unlink()
    link.symlink_to(link)
    assert run([*NEW_API_KEY, str(link), "--id", "third"]) == 2
    assert link.is_symlink() and "symbolic links" in capsys.readouterr().err


def test_deeply_nested_files_are_refused_without_a_traceback(tmp_path: Path, capsys) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(f"x = {'[' * 20_000}{']' * 20_000}\n")
    assert run(["retention", "--settings", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"freshet: not done: settings file {path}") and said.count("\n") == 1
    with pytest.raises(SettingsError, match=r"privacy\.policy"):
        load_policy(str(path))
    path.write_text('{"x":' + "[" * 100_000)
    with pytest.raises(StackError, match=path.name):
        load_endpoints(path)
    with pytest.raises(SettingsError, match="not a key ring"):
        load_key_ring(str(path))
    (tmp_path / MANIFEST).write_bytes(path.read_bytes())
    with pytest.raises(ExportError, match=MANIFEST):
        read_manifest(tmp_path)


def test_api_keys_round_trip_with_and_without_expiry(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert run([*NEW_API_KEY, str(path), "--id", "brief", "--days", "0.5"]) == 0
    assert run([*NEW_API_KEY, str(path), "--id", "x" * 64]) == 0
    brief, lasting = read_api_keys(str(path)).values()
    assert isinstance(brief.expires_at, float) and not isinstance(lasting.expires_at, float)


def loaded(statement: str) -> set[str]:
    """The modules imported by `statement` in a fresh interpreter."""
    told = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(told.stdout.split())


def test_importing_the_command_imports_no_room() -> None:
    rooms = {"jobs", "udfs", "models", "evaluation", "privacy", "serving", "adapters", "bench", "deploy"}
    heavy = {"kafka", "pyflink", "msgspec", "numpy", "onnxruntime"}
    assert not loaded("import freshet.cli.main") & (rooms | heavy)
    assert not loaded("import freshet") & (rooms | heavy | {"typer", "schemas"})


def test_installed_command_imports_from_its_checkout(tmp_path: Path) -> None:
    (tmp_path / "schemas.py").write_text("raise RuntimeError('the schemas of somebody else')\n")
    command = tmp_path / "checkout" / ".venv" / "bin" / "freshet"
    command.parent.mkdir(parents=True)
    command.write_bytes((ROOT / "deploy" / "local" / "freshet").read_bytes())
    command.chmod(0o755)
    (command.parent / "python").symlink_to(sys.executable)
    for room in ("freshet", "schemas"):
        (tmp_path / "checkout" / room).symlink_to(ROOT / room)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path)}
    told = subprocess.run([command, "--version"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == (f"freshet {freshet.__version__}\n", "")


def test_completion_is_offered_for_common_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # tests may run below `sh`
    for shell in ("bash", "zsh", "fish"):
        command = [sys.executable, "-m", "freshet", "--show-completion", shell]
        told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert "freshet" in told.stdout and "_FRESHET_COMPLETE" in told.stdout, told.stderr


def default_of(*words: str) -> Any:
    """The default of the option in the last of `words`, for the command that the others name."""
    [option] = [one for one in ALL[words[:-1]].params if one.name == words[-1]]
    return option.default


def test_choices_and_defaults_match_the_rooms() -> None:
    assert tuple(consent.PurposeName) == PURPOSES
    assert tuple(gateway.RoleName) == ROLES
    assert default_of("model", "train", "neighbours") == ModelSettings().neighbours
    assert default_of("model", "train", "top_k") == ModelSettings().top_k
    assert default_of("model", "adopt", "top_k") == adopt.TOP_K
    assert default_of("model", "cost", "repeats") == REPEATS
    assert tuple(file_options.COLUMNS) == Mapping.__struct_fields__
    columns = Columns()
    for name in ("item", "time", "kind"):
        assert default_of("model", "train", name) == default_of("model", "evaluate", name) == getattr(columns, name)
    assert report.K_LEAST == K_LEAST


def is_entry(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def test_rooms_have_no_entry_beside_the_command() -> None:
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    entries = {
        path.relative_to(ROOT).as_posix() for path in paths if any(map(is_entry, ast.parse(path.read_text()).body))
    }
    assert entries == set(ENTRIES)


@pytest.mark.parametrize("module", [shape])
def test_examples_are_true(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_ctrl_c_is_reported_with_shell_exit_code(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adapters.secrets.signing_keys.write_signing_key", interrupted)
    assert run(["keys", "new-signing-key", "key"]) == 130
    assert capsys.readouterr().err == "freshet: interrupted; you can run the command again\n"


WRITTEN = {"out", "file"}
"""Parameters that name what a command writes; `file` also what some read."""
READS_FILE = {("replay",), ("model", "train"), ("model", "evaluate"), ("model", "retrain"), ("model", "quantise")}


def test_output_paths_need_an_existing_folder(tmp_path: Path, capsys) -> None:
    writing = [
        (words, one)
        for words, command in commands(TREE)
        for one in command.params
        if one.name in WRITTEN and not (one.name == "file" and words in READS_FILE)
    ]
    assert len(writing) == 10, "those that were known when this was written; check a new one here"
    for words, one in writing:
        line = shlex.split(command_at(words).epilog.removeprefix(shape.EXAMPLE))[1:]
        place = str(tmp_path / "typo" / "x")
        at = line.index(one.opts[0]) + 1 if one.opts[0].startswith("--") else len(words)
        assert run([*line[:at], place, *line[at + 1 :]]) == 64, words
        assert (
            f"there is no folder {tmp_path / 'typo'}: create it first, or correct the path" in capsys.readouterr().err
        )
    assert list(tmp_path.iterdir()) == []


def command_at(words: tuple[str, ...]) -> Any:
    node = TREE
    for word in words:
        node = node.commands[word]
    return node


def test_secrets_are_never_written_into_a_new_folder(tmp_path: Path) -> None:
    for write in (
        lambda path: write_key_ring(new_key_ring(), path),
        write_signing_key,
        lambda path: add_api_key(path, "shop", ("frontend",), "default", None),
    ):
        with pytest.raises(FileNotFoundError):
            write(tmp_path / "typo" / "x")
    assert list(tmp_path.iterdir()) == []


TEXTS = ("*.md", "*.toml", "*.py", "*.java", "*.json", "Makefile", "*.txt")
QUOTED = re.compile(r"`freshet ([a-z][^`]*)`")
SHOWN = re.compile(r"^freshet ([a-z].*?)(?: +#.*)?$", re.MULTILINE)


def quoted(path: Path) -> list[str]:
    """The command lines in a file, without the command's name."""
    text = path.read_text(encoding="utf-8")
    joined = re.sub(r'"\s*\n\s*\+? *f?"', "", re.sub(r"\n(?!freshet )", " ", text) if path.suffix == ".md" else text)
    return QUOTED.findall(joined) + (SHOWN.findall(text) if path.suffix == ".md" else [])


def files_of_ours() -> list[Path]:
    told = subprocess.run(["git", "ls-files", *TEXTS], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in told.stdout.splitlines() if (ROOT / name).exists()]


def unknown(line: str) -> bool:
    """Whether a command line names no known command, or an option that its command lacks."""
    node, words = TREE, line.replace("|", " ").split()
    while words and getattr(node, "commands", None) is not None and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        if words[0] not in node.commands:
            return True
        node = node.commands[words.pop(0)]
    known = {"--help", *(name for one in getattr(node, "params", ()) for name in one.opts)}
    return any(word.startswith("-") and word != "-" and word not in known for word in words)


def test_every_mentioned_command_exists() -> None:
    named = [(path.relative_to(ROOT).as_posix(), line) for path in files_of_ours() for line in quoted(path)]
    assert len(named) > 60, "they are found at all"
    assert [each for each in named if unknown(each[1])] == []


@pytest.mark.parametrize("line", ["repot --settings x", "erase forget", "report --sittings x", "keys new-key"])
def test_nonexistent_command_is_found(line: str) -> None:
    assert unknown(line)


def in_a_process(statements: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{BEGINNING}{statements}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


BEGINNING = "import signal\nimport freshet.cli.main as m\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
"""These tests may themselves run behind nohup."""


def test_internal_error_is_not_reported_as_findings() -> None:
    done = in_a_process("m.run = lambda words: 1 / 0\nm.main()")
    assert done.returncode == 2 and "ZeroDivisionError" in done.stderr
    assert done.stderr.endswith("freshet: not done: internal error, see above\n")


def test_terminated_command_cleans_up_and_nohup_is_respected() -> None:
    cleaning = "def work(words):\n try: signal.raise_signal(signal.{})\n finally: print('cleaned')\n return 0\n"
    ending = cleaning + "m.run = work\nm.main()"
    for name, code in (("SIGTERM", 128 + 15), ("SIGHUP", 128 + 1)):
        done = in_a_process(ending.format(name))
        assert (done.returncode, done.stdout) == (code, "cleaned\n")
    behind = in_a_process("signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + ending.format("SIGHUP"))
    assert (behind.returncode, behind.stdout) == (0, "cleaned\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_command_exits_with_128_plus_the_signal(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        path = tmp_path / "freshet.toml"
        path.write_text(
            f'kafka.bootstrap_servers = "127.0.0.1:{silent.getsockname()[1]}"\nredis.url = "redis://127.0.0.1:1/0"\n'
            'model.directory = "model"\n'
        )
        # If tests run in the background, SIGINT may be ignored, and a child inherits that.
        begin = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import freshet.cli.main as m"
        waiting = subprocess.Popen(
            [sys.executable, "-c", f"{begin}; m.main()", "topics", "--settings", str(path)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            looked, asked = silent.accept()[0], silent.accept()[0]
            with looked, asked:
                asked.recv(1)  # from here on Kafka's client waits for an answer
                waiting.send_signal(number)
                _, told = waiting.communicate(timeout=60)
        finally:
            waiting.kill()
    assert waiting.returncode == 128 + number
    assert told == ("freshet: interrupted; you can run the command again\n" if number == signal.SIGINT else "")


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_during_imports_prints_no_traceback(tmp_path: Path, ignored: bool) -> None:
    """The installed command, of a checkout whose imports are interrupted."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    command = folder / "freshet"
    command.write_text((ROOT / "deploy" / "local" / "freshet").read_text())
    command.chmod(0o755)
    (tmp_path / "freshet" / "cli").mkdir(parents=True)
    for package in (tmp_path / "freshet", tmp_path / "freshet" / "cli"):
        (package / "__init__.py").touch()
    (tmp_path / "freshet" / "cli" / "main.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\ndef main(): print('imported')\n"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        ended = subprocess.run([command], capture_output=True, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    expected = (0, "imported\n", "") if ignored else (-signal.SIGINT, "", "")
    assert (ended.returncode, ended.stdout, ended.stderr) == expected
