"""Runs the documented commands and Python examples in order on one stack, and compares their output."""

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import topics
from tests.support.documented import blocks, shell_blocks, write_output
from tests.support.documented_walk import ERASE, READ, USER, VERIFY, WALKED, Walk
from tests.support.live import Live, until

RENEW = "FRESHET_RENEW_DOCUMENTATION"
"""Set it to have what the commands print written to the pages."""
READER = "ada-of-the-examples"
"""Not the user of the walk: who consents again after an erasure keeps later events, and others count those here."""
PSEUDONYM = "p1.3q2-7wEhV0mZcX9aLk5TfA"


@pytest.fixture(scope="module")
def walk(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: documented requests were not sent")
    walk = Walk(live, tmp_path_factory.mktemp("documentation"))
    yield walk
    walk.close()


def shopped(live: Live) -> None:
    """The user consents and clicks; the clean events are published."""
    live.consent([USER])
    for number in range(1, 6):
        live.interact(USER, f"item-{number:05d}")
    live.wait_for_version(USER, 6)
    mine = live.pseudonymiser.user(USER).encode()
    until(lambda: sum(mine in record.value for record in live.records(topics.EVENTS)) == 5, "clean events")


def after_the_erasure(live: Live) -> None:
    """The job has erased the user, and only later checkpoints are left."""
    name = live.pseudonymiser.user(USER)
    until(lambda: name not in live.states([USER]), "the erasure")
    for _ in range(3):
        live.checkpoint()


def shape(text: str) -> list[str]:
    """The lines of an output without what varies between runs: numbers, pseudonyms, and repeated lines."""
    lines = [re.sub(r"\d+", "#", re.sub(r"p1\.[\w-]{22}", "P", line)).rstrip() for line in text.strip().splitlines()]
    return [line for line, before in zip(lines, [None, *lines], strict=False) if line != before]


@pytest.fixture(scope="module")
def shown(live: Live, walk: Walk) -> Iterator[dict[str, str]]:
    """The output of each documented command."""
    printed = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for line in WALKED:
            if line == READ:
                shopped(live)
            if line == VERIFY:
                after_the_erasure(live)
            printed[line] = walk.type(line, monkeypatch)
        yield printed


def test_documented_commands_run(shown: dict[str, str]) -> None:
    assert list(shown) == list(WALKED)
    assert '"reason":"personalised"' in shown[READ]
    assert "erased" in shown[ERASE] or "partition" in shown[ERASE]
    assert '"status": "effective"' in shown[VERIFY]


def test_output_on_the_pages_is_what_the_commands_print(live: Live, shown: dict[str, str]) -> None:
    documented = [block for block in shell_blocks() if block.output is not None and block.lines[-1] in shown]
    assert documented
    for block in documented:
        printed = "".join(shown[line] for line in block.lines).replace(live.pseudonymiser.user(USER), PSEUDONYM)
        assert USER not in printed
        if os.environ.get(RENEW):
            write_output(block, f"{printed.strip()}\n")
        else:
            hint = f"{block.page.name}: {block.lines[-1]}: {RENEW}=1 pytest {Path(__file__).name} writes it"
            assert shape(block.output or "") == shape(printed), hint


def test_documented_python_runs(live: Live, walk: Walk, shown: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(walk.folder)
    examples = [text for page, text in blocks("python") if page.name in ("quickstart.md", "README.md")]
    assert len(examples) >= 5
    for text in examples:
        names: dict[str, object] = {}
        exec(compile(walk.here(text).replace(USER, READER), "the documentation", "exec"), names)
        if "page" in names:
            assert isinstance(asyncio.run(names["page"]()), list)  # type: ignore[operator]
    assert live.list_of(READER) is None, "the last example withdraws"
