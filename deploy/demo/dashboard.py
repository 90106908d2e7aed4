"""Renders the demo's data as lines of a terminal. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from deploy.demo.followed import MarkedItem, NamedShelf, ShopperAction
from deploy.demo.text import (
    BOLD,
    CYAN,
    DIM,
    GREEN,
    RED,
    YELLOW,
    ago,
    clock,
    fit,
    paint,
    plain,
    safe,
    sparkline,
    width_of,
)
from deploy.demo.watch import Feedback, JobTotals, ListLatency
from schemas.rejects import DeadLetter

WIDTH_MIN, WIDTH_MAX = 40, 132
NARROW: Final = 90
LIST_ROWS_MAX: Final = 12
STORIES_SHOWN: Final = 4
SHELF_ROWS: Final = 4
SHELVES_SHOWN: Final = 3
LEVELS: Final = ("full", "session", "none")


class View(NamedTuple):
    """All displayed data. Times are in ms; `sent` counts records sent to Kafka, `totals` is what the job reports."""

    now_ms: int
    elapsed_s: float
    job_state: str
    notice: str
    events_per_s: float
    lists_per_s: float
    trend: Sequence[int]
    latency: ListLatency
    sent: int
    totals: JobTotals
    levels: Mapping[str, int]
    last_reject: DeadLetter | None
    name: str
    level: str | None
    actions: Sequence[ShopperAction]
    listed: Sequence[MarkedItem]
    list_version: int
    list_reason: str
    list_age_ms: int
    stories: Sequence[str]
    hint: str = ""
    shelves: Sequence[NamedShelf] = ()
    feedback: Mapping[str, Feedback] = {}


def render(view: View, width: int, height: int, colour: bool = True) -> list[str]:
    """At most `height` lines, each of at most `width` columns."""
    columns = max(WIDTH_MIN, min(width, WIDTH_MAX))
    head = [_title(view, columns), *(paint(line, DIM) for line in _wrapped(view.hint, columns))]
    rule = paint("─" * columns, DIM)
    numbers = [*_rates(view, columns), "", *_account(view, columns)]
    stories = [_story(story, newest=place == 0) for place, story in enumerate(view.stories[:STORIES_SHOWN])]
    stories += [""] * (STORIES_SHOWN - len(stories))
    spare = height - len(head) - len(numbers) - 2
    if spare < 6:  # a small terminal: the shopper is more important than the totals
        numbers, spare = numbers[:2], height - len(head) - 4
    # What there is room for, in this order: the shopper, then what is beside their list, then stories.
    shelves = [rule, *_shelves(view, columns)] if spare >= 6 + SHELF_ROWS + 2 else []
    shows_stories = spare - len(shelves) >= 6 + STORIES_SHOWN + 1
    rows = min(LIST_ROWS_MAX, spare - 1 - len(shelves) - (STORIES_SHOWN + 1 if shows_stories else 0))
    body = _shopper(view, columns, max(1, rows))
    lines = [*head, *numbers, rule, *body, *shelves] + ([rule, *stories] if shows_stories else [])
    fitted = [fit(line, min(columns, width)).rstrip() if width_of(line) > width else line for line in lines[:height]]
    return fitted if colour else [plain(line).rstrip() for line in fitted]


def _wrapped(command: str, columns: int) -> list[str]:
    """A command as lines that a shell takes as one: it can be copied from a narrow terminal, too.

    >>> _wrapped("curl -sH @file http://localhost:1/v1", 24)
    ['curl -sH @file \\\\', 'http://localhost:1/v1']
    """
    lines = []
    while len(command) > columns:
        place = command.rfind(" ", 0, columns - 1) + 1 or columns - 1
        lines.append(command[:place] + "\\")
        command = command[place:]
    return [*lines, command]


def _title(view: View, columns: int) -> str:
    left = paint(" freshet ", BOLD, "7") + paint("  Kafka → Flink → ONNX → Redis, for real", DIM)
    state = paint(view.job_state, GREEN if view.job_state == "running" else YELLOW)
    right = f"job {state}  {clock(view.elapsed_s)}  " + paint("Ctrl-C ends it", DIM)
    return _justified(left, right, columns)


def _justified(left: str, right: str, columns: int) -> str:
    room = columns - width_of(right) - 1
    return fit(left, room) + " " + right if room > 10 else fit(left, columns)


def _rates(view: View, columns: int) -> list[str]:
    trend = paint(sparkline(list(view.trend), min(60, columns - 34)), CYAN)
    p50, p99 = view.latency
    return [
        f"  in  {_figure(view.events_per_s)} events/s   {trend}",
        f"  out {_figure(view.lists_per_s)} lists/s    event → list  p50 {_ms(p50)}  p99 {_ms(p99)}"
        + paint("   Kafka append to Redis, last 10 s", DIM),
    ]


def _figure(number: float) -> str:
    return paint(f"{number:>8,.0f}", BOLD)


def _ms(value: float | None) -> str:
    return paint("–", DIM) if value is None else paint(f"{value:,.0f} ms", BOLD)


def _account(view: View, columns: int) -> list[str]:
    totals = view.totals
    holds = paint("✓ adds up", GREEN) if totals.adds_up else paint("✗ does not add up", RED, BOLD)
    parts = (
        f"accepted {totals.accepted:,} + duplicates {totals.duplicates:,} + "
        f"denied {totals.denied:,} + rejected {totals.rejects:,}"
    )
    under_way = view.sent - totals.sent
    behind = paint(f"   {under_way:,} under way", DIM) if under_way > 0 else ""
    levels = " · ".join(f"{level} {view.levels.get(level, 0):,}" for level in LEVELS)
    return [
        f"  {totals.sent:,} = {parts}  {holds}{behind}",
        f"  {paint('rejected', DIM)}  {_reasons(totals.rejected, columns - 12)}",
        f"            {_last_reject(view.last_reject)}",
        f"  {paint('consent', DIM)}   {levels}" + (f"   {paint(view.notice, YELLOW)}" if view.notice else ""),
        _feedback(view.feedback),
    ]


def _reasons(rejected: Mapping[str, int], columns: int) -> str:
    """As many reject reasons as fit, most frequent first, and the number of the remaining ones."""
    reasons = [f"{reason} {count:,}" for reason, count in sorted(rejected.items(), key=lambda each: -each[1])]
    for shown in range(len(reasons), 0, -1):
        more = f" · {len(reasons) - shown} more" if shown < len(reasons) else ""
        line = " · ".join(reasons[:shown]) + more
        if len(line) <= columns:
            return line
    return reasons[0] if reasons else "none yet"


def _last_reject(letter: DeadLetter | None) -> str:
    if letter is None:
        return paint("dead letters appear with the first checkpoint", DIM)
    return paint(f"last: {letter.reason}, {letter.topic} partition {letter.partition} offset {letter.offset}", DIM)


def _shopper(view: View, columns: int, rows: int) -> list[str]:
    """The shopper's actions on the left, the list on the right, side by side."""
    left_width = min(56, columns // 2)
    right_width = columns - left_width - 3
    consent = f" · consent {view.level}" if view.level else ""
    left = [f"  {paint(safe(view.name), BOLD)}{paint(consent, DIM)}"]
    left += [_action_line(action, view.now_ms, short=columns < NARROW) for action in view.actions[:rows]]
    right = [_list_title(view)] + [_listed(place, item) for place, item in enumerate(view.listed[:rows], start=1)]
    if len(right) == 1:
        right.append(paint("nothing yet", DIM))
    left, right = (side + [""] * (rows + 1 - len(side)) for side in (left, right))
    bar = paint("│", DIM)
    return [
        f"{fit(one, left_width)} {bar} {fit(other, right_width)}".rstrip()
        for one, other in zip(left, right, strict=True)
    ]


def _shelves(view: View, columns: int) -> list[str]:
    """The shelves beside the list, side by side: a line of titles, and one for each row of items."""
    width = columns // SHELVES_SHOWN
    shown = view.shelves[:SHELVES_SHOWN]
    if not shown:
        return [paint("  similar, trending and recently viewed items follow", DIM), *[""] * SHELF_ROWS]
    titles = "".join(fit("  " + paint(safe(shelf.title), BOLD), width) for shelf in shown)
    rows = [[safe(name) for name in shelf.items[:SHELF_ROWS]] for shelf in shown]
    lines = (
        "".join(fit("  " + (names[row] if row < len(names) else ""), width) for names in rows)
        for row in range(SHELF_ROWS)
    )
    return [titles.rstrip(), *(line.rstrip() for line in lines)]


def _feedback(feedback: Mapping[str, Feedback]) -> str:
    """What was seen and clicked, by the model of the list."""
    parts = [
        f"{safe(model)}: {seen.impressions:,} seen · {seen.clicks:,} clicked · CTR "
        + paint(f"{100 * seen.ctr:.1f} %", BOLD)
        for model, seen in list(feedback.items())[:2]
    ]
    shown = "   ".join(parts) or paint("what is clicked in lists is counted every 10 s", DIM)
    return f"  {paint('feedback', DIM)}  {shown}"


def _action_line(action: ShopperAction, now_ms: int, short: bool) -> str:
    """One line; a short one leaves out what can be inferred."""
    when = ago(max(0, now_ms - action.at_ms))
    when, verb = (f"{when.removesuffix(' ago'):>6}", "") if short else (f"{when:>10}  ", f"{action.verb:<12}")
    name = paint(safe(action.name), BOLD) if action.verb == "clicked" else safe(action.name)
    return f"{paint(when, DIM)}{paint(verb, DIM)} {name}"


def _list_title(view: View) -> str:
    if view.list_version == 0:
        return paint("the list as a frontend reads it", DIM)
    age = "now" if view.list_age_ms < 1_000 else f"{view.list_age_ms // 1000} s old"
    if view.list_reason == "popular":
        return paint("the popular list", BOLD, YELLOW) + paint(f" · {age}", DIM)
    return paint(f"list v{view.list_version}", BOLD) + paint(f" · {view.list_reason} · {age}", DIM)


def _listed(place: int, item: MarkedItem) -> str:
    name = safe(item.name)
    if item.mark == "new":
        return f"{place:>2} {paint('new', GREEN, BOLD)} {paint(name, GREEN)}"
    if item.mark == "up":
        return f"{place:>2} {paint(' ▲ ', GREEN)} {name}"
    return f"{place:>2}     {name}"


def _story(story: str, newest: bool) -> str:
    return "  " + (safe(story) if newest else paint(safe(story), DIM))
