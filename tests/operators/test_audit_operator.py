"""The operator's audit trail, on fakes: what is recorded, and that crashes leave one unbroken chain."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from privacy.rules.audit_proof import Line
from privacy.rules.audit_verify import Times, Verification, verify
from schemas.consents import Level
from schemas.metrics import PRIVACY
from schemas.store import Written
from tests.support.bucket import CRASH, Bucket, answers
from tests.support.fakes import MemoryStore
from tests.support.trails import KEY, TRUST
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    a_command,
    a_consent,
    an_erasure,
    an_interaction,
)
from udfs.elements import AccessRequest
from udfs.operators import audit_keeper
from udfs.operators.audit_keeper import AUDIT, AUDIT_HEADS
from udfs.operators.outputs import RECEIPTS

pytestmark = pytest.mark.privacy


def lines_of(emitted: list[Any], tag: Any = AUDIT) -> list[bytes]:
    """The records that an element or a timer left."""
    told = [out[1] for out in emitted if isinstance(out, tuple) and out[0] is tag]
    return [line for joined in told for line in joined.split(b"\n")]


def told(emitted: list[Any]) -> list[dict[str, Any]]:
    """Their content, without place and links; beginnings of segments left out."""
    found = [msgspec.json.decode(line) for line in lines_of(emitted)]
    for record in found:
        for name in ("bucket", "epoch", "seq", "at", "prev", "hash"):
            del record[name]
    return [record for record in found if record["kind"] != "segment"]


def verified(lines: list[bytes], heads: list[bytes]) -> Verification:
    in_topic = [Line(0, n, raw) for n, raw in enumerate(lines)]
    return verify(in_topic, [Line(0, n, raw) for n, raw in enumerate(heads)], TRUST, Times(BEGINNING - 1))


def test_consent_decisions_are_audited_with_their_offset(bucket: Bucket) -> None:
    later = {"partition": 0, "pseudonym": "ada"}
    assert told(bucket.take(a_consent("ada", purposes=0b101, offset=4))) == [
        {"kind": "consent", "level": "full", "purposes": ["personalise", "train"], "consent_at": BEGINNING,
         "offset": 4, **later}
    ]  # fmt: skip
    assert told(bucket.take(a_consent("ada", "none", BEGINNING + 5, offset=5))) == [
        {"kind": "withdrawal", "consent_at": BEGINNING + 5, "offset": 5, **later}
    ]
    assert told(bucket.take(a_consent("ada", at=BEGINNING + 6, offset=6, said_at=BEGINNING))) == [
        {"kind": "refused", "consent_at": BEGINNING + 6, "offset": 6, **later}
    ]
    assert told(bucket.take(an_erasure("ada", BEGINNING + 7, offset=7))) == [
        {"kind": "erasure", "consent_at": BEGINNING + 7, "offset": 7, **later}
    ]
    assert told(bucket.take(an_erasure("ada", BEGINNING + 7, offset=7), an_interaction("bob"))) != []


def test_a_replayed_consent_is_not_recorded_again(bucket: Bucket) -> None:
    bucket.take(a_consent("ada"))
    assert lines_of(bucket.take(a_consent("ada"))) == []


def test_denied_interactions_are_audited_per_user_and_interval(bucket: Bucket) -> None:
    bucket.take(a_consent("ada", "none"))
    for n in range(3):
        bucket.take(an_interaction("ada", BEGINNING + n), an_interaction("stranger", BEGINNING + n))
    assert told(bucket.pass_time(10 * SECOND)) == [
        {"kind": "denied", "events": 3, "reason": "not_allowed", "pseudonym": "ada"},
        {"kind": "denied", "events": 3, "reason": "no_consent_on_record"},
    ]
    assert told(bucket.pass_time(MINUTE)) == []


def test_expiry_is_audited(bucket: Bucket) -> None:
    bucket.take(a_consent("ada", expires_at=BEGINNING + MINUTE))
    assert told(bucket.pass_time(3 * MINUTE)) == [{"kind": "expiry", "pseudonym": "ada"}]


def test_consent_expires_after_its_profile_was_deleted(bucket: Bucket) -> None:
    bucket.take(a_consent("ada", "session", expires_at=BEGINNING + 3 * HOUR), an_interaction("ada", session="s"))
    assert told(bucket.pass_time(2 * HOUR)) == []
    ended = bucket.user("ada")
    assert ended is not None and ended.profile is None and ended.level == Level.SESSION
    assert told(bucket.pass_time(2 * HOUR)) == [{"kind": "expiry", "pseudonym": "ada"}]
    expired = bucket.user("ada")
    assert expired is not None and expired.level == Level.NONE
    bucket.run_out_of_timers()


def test_reads_are_recorded_by_role_and_purpose(bucket: Bucket) -> None:
    bucket.take(a_consent("ada"))
    emitted = bucket.take(
        commands=[a_command("account")],
        access_requests=[
            AccessRequest("ada", "r2", "privacy officer", "GDPR 15"),
            AccessRequest("nobody", "r3", "x", "y"),
        ],
    )
    assert told(emitted) == [
        {"kind": "access", "role": "privacy officer", "purpose": "GDPR 15", "what": "profile", "pseudonym": "ada"},
        {"kind": "access", "role": "x", "purpose": "y", "what": "profile", "pseudonym": "nobody"},
    ]
    found = {answer.request: msgspec.json.decode(answer.state) for answer in answers(emitted)}
    assert found["r2"]["level"] == 2 and found["r3"] is None
    told_on_receipts = [msgspec.json.decode(out[1])["kind"] for out in emitted if out[0] is RECEIPTS]
    assert told_on_receipts == ["element", "account"], "no profile where everything else is read from"


def test_erased_user_leaves_pending_counts(bucket: Bucket) -> None:
    bucket.take(a_consent("ada", "none"), an_interaction("ada"))
    emitted = told(bucket.take(an_erasure("ada", BEGINNING + HOUR)))
    assert [record["kind"] for record in emitted] == ["denied", "erasure"]
    assert b"ada" not in bucket.keyed.states["audit-v1"].value()


def test_heads_are_signed_per_interval_with_records(bucket: Bucket) -> None:
    lines = lines_of(bucket.take(a_consent("ada")))
    heads = lines_of(bucket.pass_time(10 * SECOND), AUDIT_HEADS)
    assert len(heads) == 1
    assert verified(lines, heads).chains[0].signed_seq == 1
    bucket.take(an_interaction("ada", BEGINNING + MINUTE))
    assert lines_of(bucket.pass_time(2 * DAY), AUDIT_HEADS) == [], "lists were refreshed, and nothing was recorded"


def test_relinked_user_is_counted_under_the_new_pseudonym(bucket: Bucket) -> None:
    bucket.take(a_consent("p1.ada", "none"), an_interaction("p1.ada"))
    bucket.take(links={"p2.ada": "p1.ada"})
    assert b"p1.ada" not in bucket.keyed.states["audit-v1"].value()
    [denied] = told(bucket.pass_time(10 * SECOND))
    assert denied["pseudonym"] == "p2.ada"


def test_many_denied_users_are_audited_early(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_keeper, "DENIED_USERS_MAX", 2)
    users = ["ada", "bob", "cyd"]
    bucket.take(*(a_consent(user, "none") for user in users))
    assert told(bucket.take(*(an_interaction(user) for user in users[:2]))) == []
    assert len(told(bucket.take(an_interaction("cyd")))) == 3


@pytest.mark.parametrize("crash_at", range(1, 7))
@pytest.mark.parametrize("resubmitted", [False, True])
@pytest.mark.promise("audit-tamper")
def test_audit_chain_survives_crashes(bucket: Bucket, crash_at: int, resubmitted: bool) -> None:
    """What was emitted after the last checkpoint is never committed; a job submitted again has an epoch of its own."""
    consents = [a_consent(f"u{n}", at=BEGINNING + n * MINUTE, offset=n) for n in range(6)]
    story = [*consents[:crash_at], CRASH, *consents[crash_at - 1 :]]
    lines: list[bytes] = []
    heads: list[bytes] = []
    snapshot = bucket.keyed.snapshot()
    for n, record in enumerate(story):
        if record is CRASH:
            bucket.restart(snapshot, epoch=BEGINNING + HOUR if resubmitted else None)
            continue
        emitted = bucket.take(record) + bucket.pass_time(20 * SECOND)
        if story[n + 1 : n + 2] == [CRASH]:
            continue  # lost with the crash
        lines += lines_of(emitted)
        heads += lines_of(emitted, AUDIT_HEADS)
        snapshot = bucket.keyed.snapshot()
    result = verified(lines, heads)
    assert result.findings == [] and result.remarks == []
    assert sum(b'"kind":"consent"' in line for line in lines) == 6
    assert result.chains[0].segments == 1 + (resubmitted and crash_at > 1)


def test_state_without_signed_segments_continues_with_a_signed_segment(bucket: Bucket) -> None:
    """The upgrade through a savepoint: the trail that it left, its book, and what this release writes behind them."""
    folder = Path(__file__).parents[1] / "golden" / "audit"
    lines, heads = ((folder / f"unsigned-segments{of}.jsonl").read_bytes().splitlines() for of in ("", "-heads"))
    bucket.keyed.states["audit-v1"].update((folder / "unsigned-segments-book-3.bin").read_bytes())
    bucket.keyed.now_ms = BEGINNING + 3 * HOUR
    bucket.restart(bucket.keyed.snapshot(), epoch=BEGINNING + 3 * HOUR)
    emitted = bucket.take(a_consent("ada", at=BEGINNING + 3 * HOUR)) + bucket.pass_time(10 * SECOND)
    new = lines_of(emitted)
    opening = msgspec.json.decode(new[0])
    assert (opening["kind"], opening["trail"], opening["key"]) == ("segment", TRUST.trails[0], KEY.id)
    assert [record["kind"] for record in told(emitted)] == ["consent", "denied"], "the counts of the book are told"
    result = verified([*lines, *new], [*heads, *lines_of(emitted, AUDIT_HEADS)])
    assert result.findings == []
    left = {(0, n) for n, raw in enumerate(lines) if b'"bucket":0' in raw and b'"expiry"' in raw}
    assert result.unproved == left, "but for the bucket in which nothing was recorded since"


def test_late_heads_carry_their_signing_time(bucket: Bucket) -> None:
    """A timer that came due during downtime fires when the job is back."""
    lines = lines_of(bucket.take(a_consent("ada")))
    snapshot = bucket.keyed.snapshot()
    bucket.keyed.now_ms += HOUR
    bucket.restart(snapshot)
    late = bucket.take(a_consent("bob", at=BEGINNING + HOUR, offset=9))
    emitted = bucket.pass_time(0)
    [head] = [msgspec.json.decode(raw) for raw in lines_of(emitted, AUDIT_HEADS)]
    assert head["at"] == BEGINNING + HOUR
    assert verified([*lines, *lines_of(late)], lines_of(emitted, AUDIT_HEADS)).findings == []


def test_audit_records_are_counted_as_metrics(bucket: Bucket) -> None:
    bucket.take(a_consent("ada"), a_consent("bob"), a_consent("cyd", expires_at=BEGINNING + MINUTE))
    bucket.keyed.now_ms += 40
    bucket.take(a_consent("ada", "none", BEGINNING + 10, offset=5_000_000))
    bucket.take(a_consent("ada", at=BEGINNING + 20, offset=5_000_001, said_at=BEGINNING))
    bucket.take(an_erasure("bob", BEGINNING + 30, offset=5_000_002))
    bucket.take(an_interaction("ada", BEGINNING + 35), an_interaction("stranger", BEGINNING + 35))
    bucket.pass_time(2 * MINUTE)
    assert {metric.name: bucket.keyed.counts[metric.name] for metric in PRIVACY} == {
        "consents_granted_total": 3,
        "consents_withdrawn_total": 1,
        "consents_refused_total": 1,
        "consents_expired_total": 1,
        "users_erased_total": 1,
        "events_denied_total": 2,
        "audit_records_total": 10,
    }
    counts = bucket.keyed.counts
    assert [counts[f'withdrawal_seconds_bucket{{le="{le}"}}'] for le in ("0.025", "0.05", "+Inf")] == [0, 1, 1]


def test_withdrawal_took_as_long_as_redis_was_away() -> None:
    """The element arrives at once, and Redis answers half a minute later."""

    class SlowMemoryStore(MemoryStore):
        def write(self, *arguments: Any) -> Written:
            bucket.keyed.now_ms += 30 * SECOND
            return super().write(*arguments)

    bucket = Bucket(SlowMemoryStore(BEGINNING, lambda: bucket.keyed.now_ms))
    bucket.take(a_consent(at=BEGINNING))
    bucket.take(a_consent(level="none", at=bucket.keyed.now_ms + 1))
    counts = bucket.keyed.counts
    assert [counts[f'withdrawal_seconds_bucket{{le="{le}"}}'] for le in ("5.0", "30.0", "+Inf")] == [0, 1, 1]
