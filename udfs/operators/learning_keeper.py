"""Follows the online model, collects in keyed state what a bucket teaches it, and passes that on each second."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from pyflink.common import Types
from pyflink.datastream import OutputTag, RuntimeContext
from pyflink.datastream.state import ListStateDescriptor

from models.online.lessons import decode_gradients, encode_gradients, encode_sums, sum_lessons
from models.online.score_weights import Gradients
from udfs.elements import EventRecord
from udfs.learning import ExampleBudget, Teaching, decode_lessons, encode_lessons
from udfs.online_model import OnlineModel
from udfs.operators.store_keeper import StoreKeeper
from udfs.operators.timers import register_end_of
from udfs.ranking import ListRules

LESSONS: Final = OutputTag("lessons", Types.PRIMITIVE_ARRAY(Types.BYTE()))
RELEARN: Final = b"\x00relearn"
"""Begins an element for the learner that is no lesson but the id of a request, see `learn_operator`."""
SUMS_EVERY_MS: Final = 1_000
FOLLOW_EVERY_MS: Final = 1_000


class Taught(NamedTuple):
    """What an element teaches, as bytes to be stored, and how many examples its gradients are of."""

    lessons: bytes = b""
    gradients: bytes = b""
    examples: int = 0


class LearningKeeper:
    """Keeps the lessons of the bucket being processed until the second ends. Does nothing without an online `model`."""

    def __init__(
        self, context: RuntimeContext, model: OnlineModel | None, rules: ListRules, store: StoreKeeper
    ) -> None:
        raw = Types.PICKLED_BYTE_ARRAY()
        self._lessons = context.get_list_state(ListStateDescriptor("lessons-v1", raw))
        self._gradients = context.get_list_state(ListStateDescriptor("gradients-v1", raw))
        self._model, self._rules, self._store = model, rules, store
        self._followed_at_ms = 0
        self._budget = ExampleBudget()

    def follow(self, now_ms: int) -> None:
        """Bring the model up to date, once a second."""
        if self._model is not None and now_ms - self._followed_at_ms >= FOLLOW_EVERY_MS:
            self._followed_at_ms = now_ms
            self._store.follow(self._model)

    def teaching(self) -> Teaching | None:
        """What the next element is to teach into."""
        return None if self._model is None else Teaching()

    def taught(self, teaching: Teaching | None, accepted: Sequence[EventRecord], ctx: Any) -> Taught:
        """What an element taught: of users whose events were `accepted` in the end."""
        if teaching is None or self._model is None:
            return Taught()
        users = {event.pseudonym for event in accepted}
        lessons = teaching.lessons(users)
        if not lessons:
            return Taught()
        examples = teaching.examples(users)[: self._budget.left(ctx.get_current_key(), _now_ms(ctx))]
        gradients = self._model.gradients(examples, self._rules)
        packed = msgspec.msgpack.encode(encode_gradients(gradients)) if gradients.lists else b""
        return Taught(encode_lessons(lessons), packed, len(examples))

    def put(self, taught: Taught, ctx: Any) -> None:
        """Store it until the second ends."""
        if not taught.lessons:
            return
        self._lessons.add(taught.lessons)
        register_end_of(SUMS_EVERY_MS, ctx)
        if taught.gradients:
            self._gradients.add(taught.gradients)
        self._budget.spend(ctx.get_current_key(), _now_ms(ctx), taught.examples)

    def sums(self) -> Iterator[Any]:
        """The sums of what was stored since the last call."""
        lessons = [lesson for raw in self._lessons.get() or () for lesson in decode_lessons(raw)]
        if not lessons:
            return
        gradients = Gradients()
        for raw in self._gradients.get() or ():
            gradients.add(decode_gradients(msgspec.msgpack.decode(raw, type=tuple[int, bytes, bytes])))
        self._lessons.clear()
        self._gradients.clear()
        yield LESSONS, encode_sums(sum_lessons(lessons, gradients))


def _now_ms(ctx: Any) -> int:
    return int(ctx.timer_service().current_processing_time())
