"""The same events through the running job and through the evaluator give the same lists, byte for byte.

The evaluator reads the events from a file. It is told the two moments that a list names, `epoch` (when the job was
submitted) and `at` (when the list was made); all other bytes are its own: version, model, reason, items and scores.
The lists are made by two frozen models, the second one swapped in from a savepoint, and by the online model, across a
kill of the TaskManager. With FRESHET_LONG=1 there are ten times the events.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest

from deploy.local import product
from evaluation.job_twin import JobRules, ListsTwin, UsersTwin
from evaluation.model_archive import ModelArchive
from jobs.settings import load_settings
from jobs.workers import open_store
from models.interactions import Columns, read
from models.random_model import random_model
from models.scorer import Scorer
from schemas.events import EVENT_TYPES
from schemas.lists import decode_list
from tests.support.live import Live, start_live, until
from udfs.frozen_model import FrozenModel
from udfs.ranking import ListModel

USERS: Final = [f"shopper-{n}" for n in range(6)]
KINDS: Final = ("click", "view", "purchase")
ITEMS: Final = 200
TIMES: Final = 10 if os.environ.get("FRESHET_LONG") else 1
FROZEN_EVENTS: Final = 30 * TIMES
ONLINE_LISTS: Final = 30 * TIMES
SHORT_LISTS: Final = "\n[lists]\nitems = 5\n"
"""What is popular fills up lists that the model leaves short: these are short enough for a young model."""


class Made(NamedTuple):
    """A list that the job has made, after which row of the file."""

    row: int
    user: str
    raw: bytes


class Shopping:
    """Shoppers who do one thing after the other; the list after each is read before the next."""

    def __init__(self, live: Live, folder: Path) -> None:
        self.live, self.path, self.made = live, folder / "events.csv", list[Made]()
        self.archive, self._random = ModelArchive(), np.random.default_rng(5)
        self._rows: list[tuple[str, str, str, int]] = []
        self._versions = dict.fromkeys(USERS, 1)
        self._store = open_store(live.settings, 1)

    def go_on(self) -> Made:
        """One event, and the list after it."""
        user, kind = USERS[self._random.integers(len(USERS))], KINDS[self._random.integers(len(KINDS))]
        item = f"item-{int(self._random.integers(1, ITEMS // 3)):05d}"
        event = self.live.event(user, item, kind)
        self.live.send("interactions", [(user.encode(), event)])
        self._rows.append((user, item, kind, _ts_of(event)))
        self._versions[user] += 1
        self.live.wait_for_version(user, self._versions[user])
        raw = self.live.redis.get(self.live.keys(user)[0])
        self.archive.record(self._store)
        self.made.append(Made(len(self._rows) - 1, user, raw))
        return self.made[-1]

    def write_file(self) -> None:
        with self.path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("user_id", "item_id", "type", "ts"))
            writer.writerows(self._rows)


def _ts_of(event: bytes) -> int:
    import json

    return int(json.loads(event)["ts"])


@pytest.fixture(scope="module", params=["thread", "process"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    settings = {"python.execution-mode": request.param, "execution.checkpointing.interval": "500 ms"}
    running = start_live(tmp_path_factory.mktemp("equals"), flink_settings=settings, model=a_model(1))
    try:
        running.consent(USERS)
        yield running
    finally:
        running.close()
        running.stack.stop()


def a_model(seed: int) -> Any:
    return lambda directory: random_model(directory, items=ITEMS, top_k=100, seed=seed)


def swap(live: Live, old: str, new: str) -> None:
    """Submit the job again with edited settings, from a savepoint, as `freshet upgrade` does."""
    path = live.product.settings_path
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    live.job_id = product.submit(live.stack, path, ("-s", savepoint))
    live.stack.rest.wait_running(live.job_id)
    live.settings = load_settings(path)


def replayed(
    shopping: Shopping, rules: dict[int, JobRules], models: dict[str, ListModel]
) -> Iterator[tuple[Made, bytes]]:
    """Each list of the job, and the evaluator's. `rules` by the row from which on they were in force."""
    file = read(shopping.path, Columns())
    users = UsersTwin(next(iter(rules.values())).profile)
    names = sorted(USERS)
    made = {each.row: each for each in shopping.made}
    for row in range(len(file)):
        kind, item = int(file.kinds[row]), file.item_ids[file.items[row]]
        took = users.take(user := names[file.users[row]], int(file.ts_ms[row]), [item], [kind], 0)
        assert EVENT_TYPES[kind] in KINDS
        listed = decode_list(made[row].raw)
        model = models.get(listed.model) or shopping.archive.model(listed.model)
        ours = rules[max(start for start in rules if start <= row)]
        [write] = ListsTwin(ours, model, epoch=listed.epoch).lists({user: took.moved[user]}, listed.at)
        yield made[row], write.payload


def test_evaluator_makes_the_lists_of_the_job(live: Live, tmp_path: Path) -> None:
    folder, shopping = live.stack.directory, Shopping(live, tmp_path)
    a_model(2)(folder / "other")
    rules = {0: JobRules(live.settings.lists)}
    for _ in range(FROZEN_EVENTS):
        shopping.go_on()
    swap(live, str((folder / "model").resolve()), str((folder / "other").resolve()))
    for _ in range(FROZEN_EVENTS):
        shopping.go_on()
    text = live.product.settings_path.read_text()
    swap(live, text[text.index("\n[model]") :], SHORT_LISTS)
    rules[len(shopping.made)] = JobRules(live.settings.lists)
    learn_until_listed(shopping, ONLINE_LISTS)
    live.checkpoint()
    live.stack.kill_task_manager()
    learn_until_listed(shopping, 2 * ONLINE_LISTS)

    shopping.write_file()
    scorers = [Scorer.open(folder / name) for name in ("model", "other")]
    frozen = {each.manifest.name: FrozenModel(each, each.manifest.name, live.settings.profile) for each in scorers}
    compared = dict.fromkeys([*frozen, "online"], 0)
    for made, ours in replayed(shopping, rules, dict(frozen)):
        listed = decode_list(made.raw)
        if listed.reason == "personalised" and len(decode_list(ours).items) == len(listed.items):
            assert ours == made.raw
            compared[listed.model.partition("@")[0]] += 1
    assert len(compared) == 3 and min(compared.values()) >= FROZEN_EVENTS - 2


def learn_until_listed(shopping: Shopping, lists: int) -> None:
    """Go on until as many lists are full lists of the online model."""

    def enough() -> bool:
        shopping.go_on()
        found = [decode_list(made.raw) for made in shopping.made]
        mine = [each for each in found if each.model.startswith("online@") and each.reason == "personalised"]
        return len(mine) >= lists and len({each.model for each in mine}) >= 5

    until(enough, f"{lists} lists of the online model")
