"""The documentation is that of this code: generated pages are up to date, commands exist, examples type-check."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from adapters.schema_sources import codec_of
from deploy.documentation.decisions import decisions
from deploy.documentation.guarantees import Promise, guarantees_page, promise_tests, read_promises
from deploy.documentation.pages import DOCS, generated_pages
from deploy.documentation.settings_pages import SettingsPage, settings_page
from freshet.cli.shape import root
from jobs.settings import Settings, load_settings
from schemas.wire.codec_choice import InputSettings
from serving.gateway.roles import ROUTES
from tests.support.documented import PAGES, blocks, commands, typed_lines
from tests.support.documented_walk import ELSEWHERE, PARSED, WALKED
from tests.support.runbook import commands_of_alerts

ROOT = DOCS.parent
MODULES = sorted({arguments[0] for arguments in commands("python -m")})
COMMANDS = sorted({tuple(arguments) for arguments in commands("freshet")})
CURRENT = [page for page in PAGES if "decisions" not in page.parts]  # a decision names files as they were on its day
FILES = {
    name: page for page in CURRENT for name in re.findall(r"`([a-z_]+(?:/[\w.-]+)*/[\w-]+\.\w+)`", page.read_text())
}
TARGETS = {name for page in CURRENT for name in re.findall(r"(?m)(?:`|^)make ([a-z][a-z-]*)", page.read_text())}


RUN_BY = {"demo": ("demo",), "model": ("model", "train"), "up": ("up",)}


def make_options() -> set[tuple[str, str]]:
    texts = [page.read_text() for page in CURRENT]
    return {pair for text in texts for pair in re.findall(r'make ([a-z-]+) ARGS="([^"]*)"', text)}


def test_generated_pages_are_up_to_date() -> None:
    for name, text in generated_pages().items():
        assert (DOCS / name).read_text() == text, f"{name}: run python -m deploy.documentation"


def test_promise_without_test_is_refused() -> None:
    promise = Promise("kept", "Section", "It is kept.")
    assert "| It is kept. | `tests/x.py::test_it` |" in guarantees_page((promise,), {"kept": ["tests/x.py::test_it"]})
    with pytest.raises(LookupError, match="kept"):
        guarantees_page((promise,), {})
    with pytest.raises(LookupError, match="other"):
        guarantees_page((promise,), {"kept": ["tests/x.py"], "other": ["tests/x.py"]})


def test_promise_keys_are_unique() -> None:
    keys = [promise.key for promise in read_promises(DOCS / "promises.toml")]
    assert len(keys) == len(set(keys)) > 30
    assert promise_tests(ROOT / "tests").keys() == set(keys)


def test_setting_without_description_is_refused() -> None:
    class Undescribed(InputSettings, frozen=True):
        another: int = 1

    class Root(Settings, frozen=True):
        undescribed: Undescribed = Undescribed()

    with pytest.raises(LookupError, match="Undescribed: write a docstring below another"):
        settings_page(SettingsPage("", "", Root))


def test_decisions_are_numbered_and_refer_to_each_other() -> None:
    found = decisions(DOCS / "internals" / "decisions")
    numbers = [int(one.number) for one in found]
    assert numbers == sorted(set(numbers)), "each has a number of its own; numbers may be left free"
    by_number = {one.number: one for one in found}
    for one in found:
        for number in re.findall(r"\[(\d{4})\]", one.replaces):
            assert f"[{one.number}]" in by_number[number].status, f"{number} does not say that {one.number} replaces it"
        for number in re.findall(r"\[(\d{4})\]", one.status):
            assert f"[{one.number}]" in by_number[number].replaces, (
                f"{number} does not say that it replaces {one.number}"
            )


@pytest.mark.parametrize("module", MODULES)
def test_documented_module_exists(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


def complaint_of(arguments: Sequence[str]) -> str | None:
    """The command line's error for `arguments`: no such command, or no such option."""
    node, left = typer.main.get_command(root), list(arguments)
    context = node.make_context("freshet", [], resilient_parsing=True)
    while left and left[0] in getattr(node, "commands", ()):
        node = node.commands[left[0]]
        context = node.make_context(left.pop(0), [], context, resilient_parsing=True)
    if getattr(node, "commands", None) and left and not left[0].startswith("-"):
        return f"no command {left[0]}"
    known = {"-", *(name for parameter in node.get_params(context) for name in parameter.opts)}
    return next((f"no option {word}" for word in left if word.startswith("-") and word not in known), None)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_documented_command_exists(arguments: tuple[str, ...]) -> None:
    assert complaint_of(arguments) is None


def test_commands_that_do_not_exist_are_found() -> None:
    assert complaint_of(("erase", "verify", "--setings", "x")) == "no option --setings"
    assert complaint_of(("erase", "verifi", "--settings", "x")) == "no command verifi"
    assert complaint_of(("eraze",)) == "no command eraze"
    assert complaint_of(("erase", "verify", "--settings", "x", "--user", "-")) is None


def test_every_documented_command_is_run_by_a_test() -> None:
    # Targets and their options: below. Who runs these tests has cloned the repository.
    typed = [line for line in typed_lines() if not line.startswith(("make ", "git clone "))]
    run = {*WALKED, *ELSEWHERE, *PARSED, *commands_of_alerts()}
    assert sorted(run) == sorted(set(typed))


@pytest.mark.parametrize("line", sorted({*ELSEWHERE, *PARSED}))
def test_command_that_another_test_runs_is_valid_as_typed(line: str) -> None:
    command, (_, *words) = typer.main.get_command(root), shlex.split(line)
    context = command.make_context("freshet", words)
    while isinstance(command, typer.core.TyperGroup):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(name, words, context)


@pytest.mark.parametrize(("line", "test"), sorted(ELSEWHERE.items()))
def test_command_that_runs_elsewhere_is_named_there(line: str, test: str) -> None:
    words = [word for word in shlex.split(line)[1:] if re.fullmatch(r"--alter|[a-z]+", word) and word != "click"]
    text = (ROOT / test).read_text()
    assert [word for word in words if f'"{word}"' not in text] == []


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_documented_make_target_exists(target: str) -> None:
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text())


@pytest.mark.parametrize(("target", "options"), sorted(make_options()))
def test_documented_make_options_exist(target: str, options: str) -> None:
    assert complaint_of((*RUN_BY[target], *re.findall(r"--[a-z-]+", options))) is None


@pytest.mark.parametrize(
    "line",
    sorted({line for _, text in blocks("sh") for line in text.splitlines() if "curl" in line and ":8080" in line}),
)
def test_documented_request_has_a_route(line: str) -> None:
    (url,) = re.findall(r'"(http://[^"]+)"', line)
    method = (re.findall(r"-X (\w+)", line) or ["GET"])[0]
    path = url.partition("localhost:8080")[2].partition("?")[0]
    routes = [re.sub(r"{\w+}", "[^/]+", route.path) for route in ROUTES.values() if route.method == method]
    assert any(re.fullmatch(route, path) for route in routes)


def test_readme_names_tests_that_are_marked() -> None:
    told = re.findall(r"^\| [^|]+ \| `(tests/[^`]+)` \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    marked = {test.partition("::")[0] for tests in promise_tests(ROOT / "tests").values() for test in tests}
    assert len(told) == 5
    assert set(told) <= marked


@pytest.mark.parametrize("path", sorted(FILES))
def test_documented_file_exists(path: str) -> None:
    assert (ROOT / path).exists(), f"{FILES[path].relative_to(ROOT)} names it"


def test_python_examples_type_check(tmp_path: Path) -> None:
    examples = [text for _, text in blocks("python")]
    assert len(examples) >= 4
    paths = []
    for number, text in enumerate(examples):
        paths.append(tmp_path / f"example_{number}.py")
        paths[-1].write_text(text)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, paths)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


def test_toml_examples_are_settings(tmp_path: Path) -> None:
    tenant, *jobs = [text for page, text in blocks("toml") if page.name == "install.md"]
    assert jobs
    (tmp_path / "tenant.toml").write_text(tenant)
    for text in jobs:
        assert tomllib.loads(text)["kafka"]
        path = tmp_path / "freshet.toml"
        path.write_text(text.replace("/etc/freshet/tenant.toml", f"{tmp_path}/tenant.toml"))
        assert load_settings(path).privacy.key_ring == f"{tmp_path}/key-ring.json"


def test_json_example_is_a_consent() -> None:
    [example] = [text for page, text in blocks("json") if page.name == "consent-record.md"]
    change, unknown_fields = codec_of(InputSettings()).consent(example.encode())
    assert (change.user_id, change.level, change.denied, unknown_fields) == ("ada", "full", ["train"], False)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
