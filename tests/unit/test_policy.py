"""A policy removes purposes and never adds any: against a naive twin, and rule by rule."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.settings import load_policy
from schemas.consents import LEVEL_OF, PURPOSES, ConsentChange, Level, Purpose, purposes_bits
from schemas.errors import SettingsError
from schemas.wire.codecs import json_codec
from tests.support.examples import examples
from tests.support.iab import gpp, tcf_core, usnat
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    PSEUDONYMISER,
    TOPICS,
    a_raw_consent,
    a_tombstone,
)
from udfs.elements import ConsentRecord, unpack
from udfs.ingest import Ingest, RawRecord
from udfs.policy import (
    UNRESTRICTED,
    Decision,
    Effect,
    Policy,
    Reason,
    RequiredField,
    Rule,
    TcfRule,
    UsnatRule,
    decide,
    parse_policy,
)
from udfs.signals import OptOut

pytestmark = pytest.mark.privacy

EXAMPLE = Path(__file__).parents[2] / "deploy" / "consent-policy.toml"
BROKEN = "?"
OPT_OUTS: tuple[OptOut, ...] = get_args(OptOut)


class Said(NamedTuple):
    """The signals of a change before encoding: None is missing, BROKEN cannot be read.

    `in_gpp` is the content of the GPP string: its TCF purposes, opt-outs and GPC.
    """

    gpc: bool | None = None
    tcf: frozenset[int] | str | None = None
    in_gpp: tuple[frozenset[int] | str | None, dict[str, int] | str | None, bool | None] | str | None = None


SILENT = Said()


def fields_of(said: Said) -> dict[str, Any]:
    """`said` as fields of a consent change."""
    return {"gpc": said.gpc, "tcf": tcf_text(said.tcf), "gpp": gpp_text(said.in_gpp)}


def tcf_text(tcf: Collection[int] | str | None) -> str | None:
    return tcf_core(tcf) if isinstance(tcf, frozenset) else tcf  # type: ignore[return-value]


def gpp_text(in_gpp: Any) -> str | None:
    if in_gpp is None or in_gpp == BROKEN:
        return in_gpp
    tcf, opted, gpc = in_gpp
    sections = {6: "1YNN"}
    if tcf is not None:
        sections[2] = tcf_text(tcf) or ""
    if opted is not None:
        sections[7] = BROKEN if opted == BROKEN else usnat(opted, gpc)
    return gpp(sections)


purpose_lists = st.lists(st.sampled_from(PURPOSES), unique=True)
tcf_sets = st.frozensets(st.integers(1, 11), min_size=5) | st.just(BROKEN) | st.none()
opted_out = st.fixed_dictionaries({name: st.sampled_from([0, 1, 2]) for name in OPT_OUTS}) | st.just(BROKEN) | st.none()
says = st.builds(
    Said,
    st.none() | st.booleans(),
    tcf_sets,
    st.none() | st.just(BROKEN) | st.tuples(tcf_sets, opted_out, st.none() | st.booleans()),
)
records = st.fixed_dictionaries(
    {"level": st.sampled_from(["full", "full", "session", "none"])},
    optional={
        "granted": purpose_lists,
        "denied": purpose_lists,
        "expires_at": st.integers(BEGINNING + 1, BEGINNING + 600 * DAY),
        "method": st.sampled_from(["", "banner"]),
        "notice_version": st.sampled_from(["", "7"]),
        "jurisdiction": st.sampled_from(["", "EU", "eu", "US", "US-CA", "us-ny", "FR"]),
    },
)
effects = st.builds(
    Effect, st.lists(st.sampled_from(PURPOSES), min_size=1, unique=True).map(tuple), st.sampled_from([None, "session"])
) | st.builds(Effect, level=st.sampled_from(["none", "session"]))
needed = st.lists(st.integers(1, 11), min_size=1, max_size=3).map(tuple)
tcf_rules = st.builds(
    TcfRule,
    st.booleans(),
    st.dictionaries(
        st.sampled_from(PURPOSES), st.lists(st.integers(1, 11), min_size=1, max_size=3).map(tuple), min_size=1
    ),
) | st.just(TcfRule(required=True))
usnat_rules = st.builds(UsnatRule, st.booleans(), effects, st.none() | effects, st.none() | effects) | st.just(
    UsnatRule(required=True)
)
rules = st.builds(
    Rule,
    st.lists(st.sampled_from(get_args(RequiredField)), unique=True).map(tuple),
    st.none() | st.integers(1, 500),
    st.none() | effects,
    st.none() | tcf_rules,
    st.none() | usnat_rules,
)
policies = st.builds(
    Policy, rules, st.dictionaries(st.sampled_from(["EU", "US*", "US-*", "US-CA", "F*"]), rules, max_size=4)
)


def a_change(said: Said = SILENT, **fields: Any) -> ConsentChange:
    return ConsentChange("ada", **{"level": "full", "ts": BEGINNING} | fields_of(said) | fields)


def as_said(change: ConsentChange) -> Decision:
    """What the record grants by itself: ingest's formula without a policy."""
    purposes = purposes_bits(change)
    level = LEVEL_OF[change.level] if purposes & 1 else Level.NONE
    if level == Level.NONE and change.level != "full":
        purposes = 0
    return Decision(level, purposes, (change.expires_at or 0) if purposes else 0)


def is_within(inner: Decision, outer: Decision) -> bool:
    """Whether `inner` allows nothing that `outer` does not."""
    ends_in_time = not outer.expires_at or 0 < inner.expires_at <= outer.expires_at
    no_more = inner.level <= outer.level and inner.purposes & ~outer.purposes == 0
    return no_more and (inner.purposes == 0 or ends_in_time)


class NaiveDecision:
    """The twin: decides each purpose separately, from the signals before encoding."""

    def __init__(self, change: ConsentChange, said: Said, policy: Policy) -> None:
        self.change, self.rule = change, self.rule_of(change, policy)
        broken = said.in_gpp == BROKEN
        tcf, opted, gpc = (None, None, None) if said.in_gpp in (None, BROKEN) else said.in_gpp
        self.opted: Any = BROKEN if broken else opted
        self.gpc_on = said.gpc is True or self.opted == BROKEN or (opted is not None and gpc is True)
        told = [each for each in (said.tcf, BROKEN if broken else tcf) if each is not None]
        self.tcf: Any = BROKEN if BROKEN in told else frozenset.intersection(*told) if told else None

    @staticmethod
    def rule_of(change: ConsentChange, policy: Policy) -> Rule:
        label = (change.jurisdiction or "").upper()
        matching = [
            name
            for name in policy.jurisdictions
            if name == label or (name.endswith("*") and label.startswith(name[:-1]))
        ]
        exact = [name for name in matching if not name.endswith("*")]
        best = exact or sorted(matching, key=len)[-1:]
        return policy.jurisdictions[best[0]] if best else policy.default

    def effects(self) -> list[Effect]:
        rule, found = self.rule, []
        if rule.gpc is not None and self.gpc_on:
            found.append(rule.gpc)
        if rule.usnat is not None and self.opted is not None:
            for name in OPT_OUTS:
                effect = getattr(rule.usnat, name)
                if effect is not None and (self.opted == BROKEN or self.opted[name] == 1):
                    found.append(effect)
        return found

    def allows(self, purpose: Purpose) -> bool:
        change, rule = self.change, self.rule
        if change.level == "none" or purpose in (change.denied or []):
            return False
        if change.granted is not None and purpose not in change.granted:
            return False
        if any(not getattr(change, field) for field in rule.requires):
            return False
        if rule.tcf is not None:
            if self.tcf is None or self.tcf == BROKEN:
                if rule.tcf.required or (self.tcf == BROKEN and purpose in rule.tcf.purposes):
                    return False
            elif any(each not in self.tcf for each in rule.tcf.purposes.get(purpose, ())):
                return False
        if rule.usnat is not None and rule.usnat.required and (self.opted is None or self.opted == BROKEN):
            return False
        return not any(purpose in effect.denies or effect.level == "none" for effect in self.effects())

    def decision(self) -> Decision:
        purposes = sum(2**place for place, purpose in enumerate(PURPOSES) if self.allows(purpose))
        capped = self.change.level == "session" or any(effect.level == "session" for effect in self.effects())
        ends = [self.change.expires_at] if self.change.expires_at else []
        if self.rule.expires_after_days:
            ends.append(self.change.ts + self.rule.expires_after_days * 86_400_000)
        if purposes % 2 == 0:
            purposes = 0 if capped else purposes
            return Decision(Level.NONE, purposes, min(ends, default=0) if purposes else 0)
        return Decision(Level.SESSION if capped else Level.FULL, purposes, min(ends, default=0))


@settings(max_examples=examples(200), deadline=None)
@given(records, says, policies)
@pytest.mark.promise("policy-narrows")
def test_decision_equals_naive_twin_and_never_exceeds_the_record(
    record: dict[str, Any], said: Said, policy: Policy
) -> None:
    change = a_change(said, **record)
    decision = decide(change, policy)
    assert decision._replace(reasons=()) == NaiveDecision(change, said, policy).decision()
    assert is_within(decision, as_said(change))
    assert (decision.reasons != ()) == (decision[:3] != as_said(change)[:3])
    assert len(set(decision.reasons)) == len(decision.reasons)


@settings(max_examples=examples(50), deadline=None)
@given(records, says)
def test_without_policy_the_record_decides(record: dict[str, Any], said: Said) -> None:
    change = a_change(said, **record)
    assert decide(change, UNRESTRICTED) == as_said(change)


@settings(max_examples=examples(80), deadline=None)
@given(records, says, policies)
@pytest.mark.promise("policy-narrows")
def test_unreadable_signal_counts_as_the_worst(record: dict[str, Any], said: Said, policy: Policy) -> None:
    decision = decide(a_change(said, **record), policy)
    assert is_within(decide(a_change(said._replace(tcf=BROKEN), **record), policy), decision)
    assert is_within(decide(a_change(said._replace(in_gpp=BROKEN), **record), policy), decision)
    assert is_within(decide(a_change(said._replace(gpc=True), **record), policy), decision)


ONE_PURPOSE = TcfRule(purposes={"personalise": (1, 5)})
REQUIRED = TcfRule(required=True, purposes={"train": (10,)})
NO_TRAINING = Effect(("train",))


@pytest.mark.parametrize(
    ("rule", "said", "decision"),
    [
        (Rule(requires=("notice_version",)), Said(), (Level.NONE, 0, 0, "notice_version_missing")),
        (Rule(requires=("method",)), Said(), (Level.NONE, 0, 0, "method_missing")),
        (Rule(expires_after_days=30), Said(), (Level.FULL, 7, BEGINNING + 30 * DAY, "age")),
        (Rule(gpc=NO_TRAINING), Said(True), (Level.FULL, 3, 0, "gpc")),
        (Rule(gpc=Effect(level="session")), Said(True), (Level.SESSION, 7, 0, "gpc")),
        (Rule(gpc=Effect(level="none")), Said(True), (Level.NONE, 0, 0, "gpc")),
        (Rule(gpc=NO_TRAINING), Said(False, in_gpp=BROKEN), (Level.FULL, 3, 0, "gpc_unreadable")),
        (Rule(gpc=NO_TRAINING), Said(False), (Level.FULL, 7, 0, "")),
        (Rule(tcf=REQUIRED), Said(), (Level.NONE, 0, 0, "tcf_missing")),
        (Rule(tcf=REQUIRED), Said(tcf=BROKEN), (Level.NONE, 0, 0, "tcf_unreadable")),
        (Rule(tcf=REQUIRED), Said(tcf=frozenset({1})), (Level.FULL, 3, 0, "tcf_not_consented")),
        (Rule(tcf=REQUIRED), Said(in_gpp=(frozenset({10}), None, None)), (Level.FULL, 7, 0, "")),
        (Rule(tcf=ONE_PURPOSE), Said(), (Level.FULL, 7, 0, "")),
        (Rule(tcf=ONE_PURPOSE), Said(tcf=BROKEN), (Level.NONE, 6, 0, "tcf_unreadable")),
        (Rule(tcf=ONE_PURPOSE), Said(tcf=frozenset({1, 6})), (Level.NONE, 6, 0, "tcf_not_consented")),
        (Rule(tcf=ONE_PURPOSE), Said(tcf=frozenset({1, 5})), (Level.FULL, 7, 0, "")),
        (Rule(usnat=UsnatRule(required=True)), Said(), (Level.NONE, 0, 0, "usnat_missing")),
        (Rule(usnat=UsnatRule(required=True)), Said(in_gpp=BROKEN), (Level.NONE, 0, 0, "usnat_unreadable")),
        (Rule(usnat=UsnatRule(sale=NO_TRAINING)), Said(in_gpp=BROKEN), (Level.FULL, 3, 0, "usnat_unreadable")),
        (Rule(usnat=UsnatRule(sale=NO_TRAINING)), Said(in_gpp=(None, {"sale": 1}, None)), (Level.FULL, 3, 0, "sale")),
        (Rule(usnat=UsnatRule(sale=NO_TRAINING)), Said(in_gpp=(None, {"sharing": 1}, None)), (Level.FULL, 7, 0, "")),
    ],
)
def test_each_reason_has_its_effect(rule: Rule, said: Said, decision: tuple[Level, int, int, str]) -> None:
    *granted, reason = decision
    reasons = (Reason(reason),) if reason else ()
    assert decide(a_change(said), Policy(rule)) == (*granted, reasons)


def test_level_none_removes_every_purpose() -> None:
    nothing = Effect(level="none")
    rule = Rule(gpc=nothing, usnat=UsnatRule(sale=Effect(("personalise",)), sharing=nothing))
    assert decide(a_change(Said(True), denied=["personalise"]), Policy(rule)) == (Level.NONE, 0, 0, (Reason.GPC,))
    sold_and_shared = Said(in_gpp=(None, {"sale": 1, "sharing": 1}, None))
    assert decide(a_change(sold_and_shared), Policy(rule)).purposes == 0


@pytest.mark.parametrize("field", get_args(RequiredField))
def test_a_required_field_that_is_empty_is_missing(field: RequiredField) -> None:
    policy = Policy(Rule(requires=(field,)))
    assert decide(a_change(**{field: ""}), policy).level == Level.NONE
    assert decide(a_change(**{field: "x"}), policy).level == Level.FULL


def test_reason_without_effect_is_not_named() -> None:
    rule = Rule(expires_after_days=30, gpc=Effect(("train",), "session"), tcf=TcfRule(purposes={"train": (10,)}))
    said = Said(True, tcf=frozenset())
    little = a_change(said, level="session", denied=["train"], expires_at=BEGINNING + DAY)
    assert decide(little, Policy(rule)) == as_said(little)
    assert decide(a_change(said, level="none"), Policy(rule)) == (Level.NONE, 0, 0, ())
    both = (Reason.GPC, Reason.TCF_NOT_CONSENTED)
    assert decide(a_change(said, expires_at=BEGINNING + DAY), Policy(rule)).reasons == both


@pytest.mark.parametrize(
    ("jurisdiction", "days"),
    [
        (None, 1),
        ("", 1),
        ("FR", 1),
        ("U", 1),
        ("US-CA", 2),
        ("us-ca", 2),
        ("US-CAL", 3),
        ("US-NY", 3),
        ("US-", 3),
        ("US", 4),
        ("USA", 4),
    ],
)
def test_most_specific_rule_applies_else_the_default(jurisdiction: str | None, days: int) -> None:
    text = b"""
        default.expires_after_days = 1
        jurisdictions.US-CA.expires_after_days = 2
        jurisdictions."US-*".expires_after_days = 3
        jurisdictions."US*".expires_after_days = 4
    """
    assert parse_policy(text).rule_for(jurisdiction).expires_after_days == days


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "missing required field `default`"),
        ("default = [", "Invalid value"),
        ("[default]\nexpire_days = 3", r"unknown field `expire_days` - at `\$.default`"),
        ("[defaults]", "unknown field `defaults`|missing required field `default`"),
        ("default.expires_after_days = 0", r"`int` >= 1 - at `\$.default.expires_after_days`"),
        ("default.expires_after_days = 3651", r"`int` <= 3650 - at `\$.default.expires_after_days`"),
        ("default.requires = ['signature']", r"'signature' - at `\$.default.requires\[0\]`"),
        ("default.gpc = true", r"Expected `object \| null`, got `bool` - at `\$.default.gpc`"),
        ("default.gpc = {}", r"no effect.* - at `\$.default.gpc`"),
        ("default.gpc.denies = []", r"no effect.* - at `\$.default.gpc`"),
        ("default.gpc.denies = ['sell']", r"'sell' - at `\$.default.gpc.denies\[0\]`"),
        ("default.gpc.level = 'full'", r"'full' - at `\$.default.gpc.level`"),
        ("default.tcf = {}", r"no effect.* - at `\$.default.tcf`"),
        ("default.tcf.purposes.train = []", r"length >= 1 - at `\$.default.tcf.purposes\[...\]`"),
        ("default.tcf.purposes.train = [12]", r"`int` <= 11 - at `\$.default.tcf.purposes"),
        ("default.tcf.purposes.sell = [1]", r"'sell' - at `key` in `\$.default.tcf.purposes`"),
        ("default.usnat = {}", r"no effect.* - at `\$.default.usnat`"),
        ("default.usnat.gpc.level = 'none'", r"unknown field `gpc` - at `\$.default.usnat`"),
        (
            "default = {}\njurisdictions.eu = {}",
            r"Expected capital letters, .* - at `key` in `\$.jurisdictions`",
        ),
        (
            "default = {}\njurisdictions.'*' = {}",
            r"Expected capital letters, .* - at `key` in `\$.jurisdictions`",
        ),
        (
            'default = {}\njurisdictions."EU\\n" = {}',
            r"Expected capital letters, .* - at `key` in `\$.jurisdictions`",
        ),
        (
            "default = {}\njurisdictions.'U*S' = {}",
            r"Expected capital letters, .* - at `key` in `\$.jurisdictions`",
        ),
        ("default = {}\njurisdictions.EU.tcf.required = 1", r"got `int` - at `\$.jurisdictions\[...\].tcf.required`"),
    ],
)
def test_policy_file_error_names_its_position(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=complaint) as caught:
        load_policy(str(path))
    assert str(caught.value).startswith(f"privacy.policy {path}: ")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"default = {}\x00"])
def test_binary_policy_file_is_a_settings_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"privacy\.policy .*policy\.toml: "):
        load_policy(str(tmp_path / "policy.toml"))


def test_missing_policy_file_is_an_error_and_unset_restricts_nothing() -> None:
    assert load_policy(None) is UNRESTRICTED
    with pytest.raises(SettingsError, match=r"privacy\.policy /nowhere\.toml cannot be read: No such file"):
        load_policy("/nowhere.toml")


EVERYTHING = {"notice_version": "7", "method": "banner"}
CONSENTED = frozenset({1, 5, 6, 8, 10})


@pytest.mark.parametrize(
    ("place", "said", "level", "purposes"),
    [
        (None, Said(), Level.FULL, 0b111),
        (None, Said(True), Level.NONE, 0),
        ("BR", Said(True), Level.NONE, 0),
        ("EU", Said(), Level.NONE, 0),
        ("EU", Said(tcf=CONSENTED), Level.FULL, 0b111),
        ("EU", Said(tcf=CONSENTED - {10}), Level.FULL, 0b011),
        ("EU", Said(tcf=CONSENTED - {5}), Level.NONE, 0b110),
        ("EU", Said(True, tcf=CONSENTED), Level.FULL, 0b011),
        ("GB", Said(), Level.FULL, 0b111),
        ("US-NY", Said(in_gpp=(None, {"sale": 1}, None)), Level.FULL, 0b011),
        ("US-CA", Said(in_gpp=(None, {"sale": 1}, None)), Level.SESSION, 0b011),
        ("US-CA", Said(in_gpp=(None, {"targeted_advertising": 1}, None)), Level.NONE, 0b010),
        ("US-CA", Said(in_gpp=(None, {}, True)), Level.SESSION, 0b011),
    ],
)
def test_the_example_loads_and_does_what_its_comments_say(
    place: str | None, said: Said, level: Level, purposes: int
) -> None:
    decision = decide(a_change(said, jurisdiction=place, **EVERYTHING), load_policy(str(EXAMPLE)))
    assert (decision.level, decision.purposes) == (level, purposes)
    assert (decision.expires_at > BEGINNING) == (purposes > 0)


def packed(policy: Policy, record: RawRecord) -> bytes:
    ingest = Ingest(TOPICS, json_codec(), PSEUDONYMISER, [100], (), policy=policy)
    [(_, element)] = ingest.pack([record])
    return element


def the_consent(element: bytes) -> ConsentRecord:
    [change] = unpack(element).consents
    return change


def test_ingest_applies_the_policy_and_drops_signals() -> None:
    said = fields_of(Said(True, CONSENTED - {10}, (CONSENTED, {"sale": 1}, True)))
    policy = Policy(Rule(expires_after_days=3, gpc=Effect(level="session"), tcf=REQUIRED))
    element = packed(policy, a_raw_consent(**said))
    change = the_consent(element)
    assert (change.level, change.purposes, change.expires_at) == (Level.SESSION, 0b011, BEGINNING + 3 * DAY)
    assert said["tcf"].encode() not in element
    assert said["gpp"].encode() not in element
    change = the_consent(packed(UNRESTRICTED, a_raw_consent(**said)))
    assert (change.level, change.purposes, change.expires_at) == (Level.FULL, 0b111, 0)
    assert the_consent(packed(policy, a_tombstone())).level == Level.NONE


def test_fast_clock_does_not_extend_a_consent() -> None:
    policy = Policy(Rule(expires_after_days=3))
    early, late = a_raw_consent(ts=BEGINNING - DAY), a_raw_consent(ts=BEGINNING + 900 * DAY)
    assert the_consent(packed(policy, early)).expires_at == BEGINNING + 2 * DAY
    assert the_consent(packed(policy, late)).expires_at == BEGINNING + 3 * DAY
