"""The rendered compliance report: equal to a golden one, and safe from markup in consents."""

import doctest
import itertools
import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adapters.secrets.key_rings import begin_rotation
from freshet.cli.main import run
from privacy import compliance, compliance_document, document
from privacy.compliance import period_of, write
from privacy.compliance_document import Circumstances
from privacy.compliance_document import compliance_document as document_of
from privacy.document import Document, Grid, Section, html, markdown
from privacy.retention import DEFAULTS, retention
from privacy.rules.audit_verify import ChainSummary, Finding, Verification
from privacy.rules.compliance import Period
from schemas.audit import (
    AccessEntry,
    ConsentEntry,
    DeniedEntry,
    ErasureEntry,
    ExpiryEntry,
    KeyEntry,
    RefusedEntry,
    WithdrawalEntry,
)
from tests.support.trails import Told, a_trail, reported
from tests.support.vocabulary import BEGINNING, DAY, HOUR, KEY_RING, MINUTE

GOLDEN = Path(__file__).parents[1] / "golden" / "compliance-report.md"
THREE_DAYS = Period(BEGINNING, BEGINNING + 3 * DAY)
WHOLE = Verification([ChainSummary(0, 1, 190, 7, 196, 180)], [], ["what came before record 7 is past its retention"])
PLANTED = "<script>alert('x')</script>|[a](http://b.example)\n# `*_&amp;\u202e"


def given_that(verification: Verification = WHOLE) -> Circumstances:
    return Circumstances(verification, retention(DEFAULTS), KEY_RING, BEGINNING + 9 * DAY, 7 * DAY)


def a_story() -> list[Told]:
    """Forty users consent in two places, twelve withdraw, three are erased, and so on."""
    place = itertools.count()
    told: list[Told] = []
    for n in range(40):
        at, where = BEGINNING + n * HOUR, "CH" if n < 28 else "GB" if n < 39 else "LI"
        told.append(
            (at, ConsentEntry(f"p1.{n}", "session" if n % 3 else "full", ["personalise", "train"],
                              at - 30, 0, next(place),
                              notice_version="v2", jurisdiction=where, method="banner" if n % 2 else None,
                              narrowed_by=["gpc"] if n < 15 else ["age"] if n == 20 else []))
        )  # fmt: skip
    late = BEGINNING + 2 * DAY
    told += [(late + n, WithdrawalEntry(f"p1.{n}", late - n * n, 0, next(place), "settings page")) for n in range(12)]
    told += [(late + HOUR, ErasureEntry(f"p1.{n}", late + HOUR - 20, 0, next(place))) for n in range(3)]
    told += [(late + HOUR, RefusedEntry("p1.5", late, 0, next(place))), (late + HOUR, ExpiryEntry("p1.6"))]
    told += [(late + 2 * HOUR, DeniedEntry(n, "not_allowed", f"p1.{n}")) for n in range(1, 12)]
    told.append((late + 2 * HOUR, DeniedEntry(25, "no_consent_on_record")))
    told += [(late, AccessEntry("support", "request 47", "profile", 1, "p1.9"))]
    told += [(late, AccessEntry("frontend", "recommend", "list", 500))]
    told += [(late, KeyEntry("rotation_started", 2, 0)), (late + MINUTE, KeyEntry("relinked", 2, 40))]
    told += [(late + 3 * HOUR, ConsentEntry("p2.9", "full", ["personalise"], late, 0, next(place)))]
    return told


def test_report_of_small_trail_matches_golden_file():
    report = reported(a_trail(a_story()), THREE_DAYS)
    text = markdown(document_of(report, given_that()))
    assert text == GOLDEN.read_text(), (
        "if the change is meant: write the text into the golden file and read the difference"
    )


def test_report_respects_larger_k_and_shows_no_pseudonym():
    text = markdown(document_of(reported(a_trail(a_story()), THREE_DAYS, k=30), given_that()))
    assert "<10" not in text.replace("&lt;", "<")
    assert not re.search(r"p[12]\\?\.\d", text)


def test_findings_come_first_and_are_named():
    broken = WHOLE._replace(findings=[Finding(3, 17, "missing: record 17 of segment 5")] * 200)
    made = document_of(reported([], THREE_DAYS), given_that(broken))
    assert markdown(made).splitlines()[0].startswith("**THE AUDIT TRAIL IS NOT WHOLE: 200 findings")
    assert markdown(made).count("missing: record 17") == 100
    page = html(made)
    assert 'class="alarm">THE AUDIT TRAIL IS NOT WHOLE' in page[: page.index("<h1>")]
    assert "NOT WHOLE" not in markdown(document_of(reported([], THREE_DAYS), given_that()))


def test_rotation_in_progress_is_reported_without_keys():
    ring = begin_rotation(KEY_RING, BEGINNING)
    made = document_of(reported([], THREE_DAYS), given_that()._replace(ring=ring))
    text = markdown(made) + html(made)
    assert "a rotation from key 1 is under way since 2025-06-11 00:00 UTC: not all have been moved" in text
    assert not any(key in text for kids in ring.keys.values() for key in kids.values())
    assert ring.routing not in text


class Reader(HTMLParser):
    """Parses a page: checks that every element is closed, and collects the texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"lang", "charset", "http-equiv", "content", "class"}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


OURS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize(
    "field", ["method", "jurisdiction", "notice_version", "narrowed_by", "role", "purpose", "what"]
)
def test_markup_in_the_trail_is_escaped(field: str):
    told: list[Told] = []
    for n in range(12):
        name, place = f"p1.{n}", (BEGINNING, 0, n)
        more = {field: [PLANTED] if field == "narrowed_by" else PLANTED}
        if field in ("role", "purpose", "what"):
            told.append((BEGINNING, AccessEntry(**{"role": "r", "purpose": "p", "what": "w", **more}, pseudonym=name)))
        else:
            told.append((BEGINNING, ConsentEntry(name, "full", ["personalise"], *place, **more)))
    made = document_of(reported(a_trail(told), THREE_DAYS), given_that())
    read = Reader(html(made))
    assert read.open == [] and read.seen == OURS
    assert "<script>alert('x')</script>|[a](http://b.example)\ufffd# `*_&amp;\ufffd" in read.texts
    text = markdown(made)
    planted = [line for line in text.splitlines() if "alert" in line]
    assert len(planted) == 1 and planted[0].startswith("| ")
    assert not re.search(r"(?<!\\)[`*_\[\]#~]|<|(?<!\\)\|(?! |$)|://", planted[0].strip("|"))


@given(st.text())
def test_any_text_stays_in_one_cell(text: str):
    assume(document.plain(text).strip() not in ("a", "b", "t"))  # the neighbouring texts
    made = Document("t", text, [Section(text, [text, Grid(["a", text], [[text, "b"]])])])
    read = Reader(html(made))
    assert read.open == []
    assert text.strip() == "" or read.texts.count(document.plain(text)) == 5
    rows = [line for line in markdown(made).splitlines() if line.startswith("|") and line.endswith(" b |")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)(?:\\\\)*\|", rows[0])) == 3


def test_report_is_replaced_atomically(tmp_path: Path):
    for title in ("old", "new"):
        paths = write(tmp_path / "out", Document(title, None, []))
    assert [path.name for path in paths] == ["report.md", "report.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.md"]
    assert paths[0].read_text() == "# new\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "9"], "greater than or equal to 10"),
        (["--from", "2026-02-01", "--to", "2026-02-01"], "--from 2026-02-01 must be before --to 2026-02-01"),
        (["--from", "yesterday"], "--from"),
        (["--public-key", "ab"], "64 hexadecimal digits"),
    ],
)
def test_invalid_option_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run(["report", "--settings", "x.toml", "--out", "out", *options]) == 64
    assert said in capsys.readouterr().err


def test_missing_settings_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["report", "--settings", str(tmp_path / "x.toml"), "--out", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_default_period_is_the_last_thirty_days():
    period = period_of(None, None, date(2025, 6, 11))
    assert period.holds(BEGINNING + DAY - 1) and not period.holds(BEGINNING + DAY)
    assert len(period.days()) == 30


@pytest.mark.parametrize("module", [document, compliance, compliance_document])
def test_the_examples_in_the_documentation_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
