"""Roll-outs in one bucket: versions that a test opens when it wants, and commands in the order of `control`."""

import threading
from collections.abc import Callable
from typing import Any

from schemas.control import Arm, ModelCommand
from schemas.errors import ModelError
from schemas.model_versions import DEFAULT, ONLINE, Version, parse_version
from schemas.receipts import ModelReceipt
from tests.support.bucket import ITEMS, Bucket, receipts
from tests.support.fakes import FixedModel
from udfs.frozen_model import FrozenModel
from udfs.online_model import OnlineModel
from udfs.operators.model_shelf import ModelShelf
from udfs.ranking import ListModel

GOOD, BETTER, WORSE = (
    str(Version(name, digit * 64)) for name, digit in (("good", "a"), ("better", "b"), ("worse", "c"))
)
BROKEN = str(Version("broken", "d" * 64))
SHORT = {version: parse_version(version).short for version in (GOOD, BETTER, WORSE)}  # type: ignore[union-attr]


class RolloutBucket(Bucket):
    """A bucket whose worker can open GOOD, BETTER and WORSE, not BROKEN. `hold` makes openings wait for `let_go`."""

    def __init__(self, **more: Any) -> None:
        self.offset = 0
        self.opened: list[str] = []
        self.complaint = "its graph cannot be run"
        self.models: dict[str, FixedModel] = {}
        self.available = {GOOD, BETTER, WORSE}
        self._gate = threading.Event()
        self._gate.set()
        super().__init__(**more)

    def new_shelf(self, model: FrozenModel | OnlineModel) -> ModelShelf:
        own: dict[str, ListModel] = {DEFAULT: model}
        self.shelf = ModelShelf(own, self._open, ONLINE)
        return self.shelf

    def _open(self, version: str) -> FrozenModel:
        assert self._gate.wait(30)
        self.opened.append(version)
        if version not in self.available:
            raise ModelError(self.complaint)
        self.models[version] = FixedModel(ITEMS)
        return FrozenModel(self.models[version], parse_version(version).short)  # type: ignore[union-attr]

    def hold(self) -> None:
        self._gate.clear()

    def let_go(self) -> None:
        self._gate.set()

    def send(
        self, action: str, version: str = DEFAULT, request: str = "", offset: int | None = None, **more: Any
    ) -> Any:
        """Send a command; returns the receipts that come at once."""
        self.offset += 1
        command = ModelCommand(
            3, request or f"r{self.offset}", action, version, offset=self.offset if offset is None else offset, **more
        )
        return receipts(self.take(commands=[command]), ModelReceipt)

    def load(self, version: str, request: str = "") -> ModelReceipt:
        """Load a version, and wait for the answer."""
        answers = self.send("load", version, request)
        for _ in range(1_000):
            if answers:
                [answer] = answers
                return answer  # type: ignore[no-any-return]
            self.shelf.wait_for(version, 30)
            answers = receipts(self.pass_time(50), ModelReceipt)
        raise AssertionError("no answer to load")

    def activate(self, version: str, **more: Any) -> ModelReceipt:
        """Load and activate a version."""
        self.load(version)
        [answer] = self.send("activate", version, **more)
        return answer  # type: ignore[no-any-return]

    def divide(self, *arms: tuple[str, str, int], experiment: str = "test", action: str = "arms") -> ModelReceipt:
        """Begin an experiment."""
        [answer] = self.send(action, arms=tuple(Arm(*arm) for arm in arms), experiment=experiment)
        return answer  # type: ignore[no-any-return]


def failing(error: Exception) -> Callable[..., Any]:
    """What a model does that fails."""

    def score(*given: Any) -> Any:
        raise error

    return score
