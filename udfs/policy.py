"""Evaluates a consent change: its own fields, narrowed by its signals according to a policy file.

A policy and signals can only restrict. No purpose is granted unless the record grants it; level and expiry never exceed
those of the record. Each purpose is decided by itself. An unreadable signal counts as its most restrictive value; a
missing signal that the policy requires denies everything.

A policy states what its author decided. Freshet does not know what the law requires.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from schemas.consents import LEVEL_OF, PURPOSES, ConsentChange, Level, Purpose, purposes_bits
from schemas.decoding import JURISDICTION_PATTERN
from schemas.topics import DAY_MS
from udfs.signals import OptOut, Signals, Unread, signals_of

TcfPurpose = Annotated[int, Meta(ge=1, le=11)]
"""The purposes of TCF 2.2."""
Days = Annotated[int, Meta(ge=1, le=3650)]
Jurisdiction = Annotated[str, Meta(max_length=32, pattern=JURISDICTION_PATTERN)]
"""A label in capitals, or a prefix of one followed by `*`."""
RequiredField = Literal["notice_version", "method"]

_BIT: Final[dict[Purpose, int]] = {purpose: 1 << place for place, purpose in enumerate(PURPOSES)}
_PERSONALISE: Final = _BIT["personalise"]
_ALL: Final = (1 << len(PURPOSES)) - 1


class Reason(StrEnum):
    """Why a decision grants less than the record: the cause of each restriction."""

    NOTICE_VERSION_MISSING = "notice_version_missing"
    METHOD_MISSING = "method_missing"
    AGE = "age"
    GPC = "gpc"
    GPC_UNREADABLE = "gpc_unreadable"
    TCF_MISSING = "tcf_missing"
    TCF_UNREADABLE = "tcf_unreadable"
    TCF_NOT_CONSENTED = "tcf_not_consented"
    USNAT_MISSING = "usnat_missing"
    USNAT_UNREADABLE = "usnat_unreadable"
    SALE = "sale"
    SHARING = "sharing"
    TARGETED_ADVERTISING = "targeted_advertising"


class Effect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a signal takes away: purposes, and levels above a limit. `level = "none"` takes everything."""

    denies: tuple[Purpose, ...] = ()
    level: Literal["none", "session"] | None = None

    def __post_init__(self) -> None:
        if not self.denies and self.level is None:
            raise ValueError("without `denies` or `level` it would have no effect: set one, or remove the table")


class TcfRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The TCF purposes that each of our purposes requires; `required`: without a TCF string, nothing is granted."""

    required: bool = False
    purposes: dict[Purpose, Annotated[tuple[TcfPurpose, ...], Meta(min_length=1)]] = {}

    def __post_init__(self) -> None:
        if not self.required and not self.purposes:
            raise ValueError("without `required = true` or `purposes` it would have no effect: remove the table")


class UsnatRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The effect of each opt-out of GPP's US national section; `required`: without that section, nothing is granted."""

    required: bool = False
    sale: Effect | None = None
    sharing: Effect | None = None
    targeted_advertising: Effect | None = None

    def __post_init__(self) -> None:
        if not self.required and not self.effects():
            raise ValueError("without `required = true` or an opt-out it would have no effect: remove the table")

    def effects(self) -> dict[OptOut, Effect]:
        """The effect of each opt-out that has one."""
        effects: dict[OptOut, Effect | None] = {
            "sale": self.sale,
            "sharing": self.sharing,
            "targeted_advertising": self.targeted_advertising,
        }
        return {name: effect for name, effect in effects.items() if effect is not None}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rule of a jurisdiction. It is complete: nothing is inherited from another rule.

    `requires` names fields that a record must have; `expires_after_days` is the age, from `ts`, at which every consent
    ends at the latest.
    """

    requires: tuple[RequiredField, ...] = ()
    expires_after_days: Days | None = None
    gpc: Effect | None = None
    tcf: TcfRule | None = None
    usnat: UsnatRule | None = None


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules by jurisdiction. `default` applies to records that no other rule names, or without a jurisdiction."""

    default: Rule
    jurisdictions: dict[Jurisdiction, Rule] = {}

    def rule_for(self, jurisdiction: str | None) -> Rule:
        """The rule for `jurisdiction`, in any case; else the one with its longest prefix; else `default`.

        >>> policy = parse_policy(b'default = {}\\njurisdictions = {"US-*" = {}, "US-CA" = {expires_after_days = 365}}')
        >>> policy.rule_for("us-ca").expires_after_days
        365
        """
        label, rules = (jurisdiction or "").upper(), self.jurisdictions
        if not label or not rules:
            return self.default
        if label in rules:
            return rules[label]
        beginnings = (f"{label[:end]}*" for end in range(len(label), 0, -1))
        return next((rules[beginning] for beginning in beginnings if beginning in rules), self.default)


UNRESTRICTED: Final = Policy(Rule())
"""Used without a policy file: every record means what it says, and signals are ignored."""


class Decision(NamedTuple):
    """What applies after a change: `purposes` as bits, `expires_at` in ms (0: never), and why it is less than said."""

    level: Level
    purposes: int
    expires_at: int
    reasons: tuple[Reason, ...] = ()


class _Cut(NamedTuple):
    """A restriction: denied purposes as bits, the highest level, the latest expiry (ms; 0 for none)."""

    reason: Reason
    denied: int = 0
    level_max: Level = Level.FULL
    expires_max: int = 0


def parse_policy(text: bytes) -> Policy:
    """Parse the policy in the TOML `text`; raises ValueError naming the place of an error."""
    return msgspec.toml.decode(text, type=Policy)


def decide(change: ConsentChange, policy: Policy) -> Decision:
    """Decide what `change` grants under `policy`.

    A withdrawal never expires, whatever it says: its key in Redis blocks older grants.

    >>> change = ConsentChange("u", "full", 1_700_000_000_000, gpc=True)
    >>> decide(change, parse_policy(b'default = {gpc = {denies = ["train"], level = "session"}}'))
    Decision(level=<Level.SESSION: 1>, purposes=3, expires_at=0, reasons=(<Reason.GPC: 'gpc'>,))
    """
    said = Decision(LEVEL_OF[change.level], purposes_bits(change), change.expires_at or 0)
    rule = policy.rule_for(change.jurisdiction)
    granted, narrowed, reasons = _normalised(said), said, []
    for cut in _cuts(change, rule):
        if _normalised(_narrowed(said, cut)) != granted:
            reasons.append(cut.reason)
            narrowed = _narrowed(narrowed, cut)
    return _normalised(narrowed)._replace(reasons=tuple(dict.fromkeys(reasons)))


def _normalised(decision: Decision) -> Decision:
    """Normalise `decision`.

    Without the purpose to personalise, the level is none. The other purposes remain only at the level `full`, at which
    interactions may be kept: events are published for them, and nothing else is done.
    """
    level, purposes, expires_at, _ = decision
    if level != Level.NONE and purposes & _PERSONALISE:
        return decision
    return (
        Decision(Level.NONE, purposes, expires_at) if level == Level.FULL and purposes else Decision(Level.NONE, 0, 0)
    )


def _narrowed(decision: Decision, cut: _Cut) -> Decision:
    expires_at = min(filter(None, (decision.expires_at, cut.expires_max)), default=0)
    return Decision(min(decision.level, cut.level_max), decision.purposes & ~cut.denied, expires_at)


def _cuts(change: ConsentChange, rule: Rule) -> Iterator[_Cut]:
    """All restrictions that `rule` imposes on `change`."""
    if "notice_version" in rule.requires and not change.notice_version:
        yield _Cut(Reason.NOTICE_VERSION_MISSING, _ALL)
    if "method" in rule.requires and not change.method:
        yield _Cut(Reason.METHOD_MISSING, _ALL)
    if rule.expires_after_days is not None:
        yield _Cut(Reason.AGE, expires_max=change.ts + rule.expires_after_days * DAY_MS)
    if rule.gpc or rule.tcf or rule.usnat:
        signals = signals_of(change)
        if rule.gpc and signals.gpc:
            yield _cut(Reason.GPC if signals.gpc is True else Reason.GPC_UNREADABLE, rule.gpc)
        if rule.tcf:
            yield from _tcf_cuts(rule.tcf, signals)
        if rule.usnat:
            yield from _usnat_cuts(rule.usnat, signals)


def _cut(reason: Reason, effect: Effect) -> _Cut:
    return _Cut(reason, _bits_of(effect.denies), Level.FULL if effect.level is None else LEVEL_OF[effect.level])


def _bits_of(purposes: tuple[Purpose, ...]) -> int:
    return sum(_BIT[purpose] for purpose in set(purposes))


def _tcf_cuts(rule: TcfRule, signals: Signals) -> Iterator[_Cut]:
    if signals.tcf is Unread.MISSING:
        if rule.required:
            yield _Cut(Reason.TCF_MISSING, _ALL)
    elif signals.tcf is Unread.UNREADABLE:
        yield _Cut(Reason.TCF_UNREADABLE, _ALL if rule.required else _bits_of(tuple(rule.purposes)))
    else:
        consented = signals.tcf
        lacking = tuple(purpose for purpose, needed in rule.purposes.items() if not consented.issuperset(needed))
        yield _Cut(Reason.TCF_NOT_CONSENTED, _bits_of(lacking))


def _usnat_cuts(rule: UsnatRule, signals: Signals) -> Iterator[_Cut]:
    if signals.usnat is Unread.MISSING:
        if rule.required:
            yield _Cut(Reason.USNAT_MISSING, _ALL)
    elif signals.usnat is Unread.UNREADABLE:
        if rule.required:
            yield _Cut(Reason.USNAT_UNREADABLE, _ALL)
        for effect in rule.effects().values():
            yield _cut(Reason.USNAT_UNREADABLE, effect)
    else:
        for opt_out, effect in rule.effects().items():
            if opt_out in signals.usnat:
                yield _cut(Reason(opt_out), effect)
