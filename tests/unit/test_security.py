"""The rules for valid credentials and their expiry, with a real key set and real API keys in files."""

import base64
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from schemas.errors import SettingsError
from serving.gateway import security
from serving.gateway.api_keys import add_api_key
from serving.gateway.problems import Problem
from serving.gateway.security import ApiKey, Authenticator, AuthSettings, new_api_key
from tests.support.gateway import AUDIENCE, HMAC_SECRET, a_token, jwks_of

RSA_KEY = rsa.generate_private_key(65537, 2048)


def authenticator(
    folder: Path, *keys: ApiKey, jwks: dict[str, Any] | None = None, clock_s: Callable[[], float] = time.time
) -> Authenticator:
    (folder / "keys.json").write_bytes(msgspec.json.encode(keys))
    (folder / "jwks.json").write_text(json.dumps(jwks_of(k1=HMAC_SECRET) if jwks is None else jwks))
    settings = AuthSettings(str(folder / "keys.json"), str(folder / "jwks.json"), audience=AUDIENCE)
    return Authenticator(settings, clock_s)


def lets_in(authenticator: Authenticator, **headers: str) -> bool:
    try:
        authenticator.principal({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})
    except Problem as problem:
        assert problem.status == 401
        return False
    return True


def test_cached_token_is_refused_after_expiry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "LEEWAY_S", 0)
    door, bearer = authenticator(tmp_path), f"Bearer {a_token(exp=int(time.time()) + 2)}"
    assert lets_in(door, authorization=bearer)
    end = time.monotonic() + 30
    while lets_in(door, authorization=bearer):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_api_key_is_valid_until_expiry_or_removal(tmp_path: Path) -> None:
    now = [1_000.0]
    secret, key = new_api_key("shop", ("frontend",), "default", 1_010.0)
    door = authenticator(tmp_path, key, clock_s=lambda: now[0])
    assert lets_in(door, x_api_key=secret) and not lets_in(door, x_api_key=secret[:-1])
    now[0] = 1_010.0
    assert not lets_in(door, x_api_key=secret), "though it was let in before"
    assert not lets_in(authenticator(tmp_path, key, clock_s=lambda: now[0]), x_api_key=secret)
    now[0] = 1_000.0
    (tmp_path / "keys.json").write_text("[]\n")
    assert door.refresh() and not lets_in(door, x_api_key=secret)


@pytest.mark.parametrize("number", ["null", "NaN", "1e999", '"never"'])
def test_non_numeric_expiry_is_refused(tmp_path: Path, number: str) -> None:
    """A key that was made for NaN or infinitely many days has null in its file."""
    _, key = new_api_key("shop", ("frontend",), "default", 1_010.0)
    path = tmp_path / "keys.json"
    path.write_bytes(msgspec.json.encode([key]).replace(b"1010.0", number.encode()))
    with pytest.raises(SettingsError, match="is not a file of API keys"):
        security.read_api_keys(str(path))


@pytest.mark.parametrize("expires_at", [float("nan"), float("inf")])
def test_key_with_non_numeric_expiry_is_not_created(expires_at: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        new_api_key("shop", ("frontend",), "default", expires_at)


@pytest.mark.filterwarnings("ignore:The HMAC key is")
def test_file_of_api_keys_is_replaced_with_owner_rights(tmp_path: Path) -> None:
    path, left_by_a_crash = tmp_path / "api-keys.json", tmp_path / f".api-keys.json.{os.getpid()}"
    for one in (path, left_by_a_crash):
        one.write_text("[]")
        one.chmod(0o644)
    add_api_key(path, "shop", ("frontend",), "default", None)
    assert [key.id for key in security.read_api_keys(str(path)).values()] == ["shop"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_algorithm_is_taken_from_the_key(tmp_path: Path) -> None:
    public = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)
    rsa_entry = {**public, "kid": "rsa", "alg": "RS256"}
    door = authenticator(tmp_path, jwks={"keys": [*jwks_of(k1=HMAC_SECRET)["keys"], rsa_entry]})
    assert lets_in(door, authorization=f"Bearer {a_token()}")
    assert lets_in(door, authorization=f"Bearer {a_token(RSA_KEY, kid='rsa', algorithm='RS256')}")
    other = {"kid": "k1", "algorithm": "HS512"}, {"kid": "k1", "algorithm": "HS384"}
    for choice in other:
        assert not lets_in(door, authorization=f"Bearer {a_token(HMAC_SECRET, **choice)}")  # type: ignore[arg-type]
    assert not lets_in(door, authorization=f"Bearer {a_token(RSA_KEY, kid='rsa', algorithm='RS512')}")
    assert not lets_in(door, authorization=f"Bearer {signed_with_what_everybody_knows()}")


def signed_with_what_everybody_knows() -> str:
    """HMAC with the public key as the secret, which PyJWT refuses to sign."""
    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head, body, _ = a_token(kid="rsa").split(".")
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{head}.{body}".encode(), pem)
    return f"{head}.{body}.{jwt.utils.base64url_encode(signature).decode()}"


def test_cached_credentials_are_separate_by_kind(tmp_path: Path) -> None:
    secret, key = new_api_key("shop", ("frontend",), "default", None)
    door, bearer = authenticator(tmp_path, key), f"Bearer {a_token()}"
    assert lets_in(door, x_api_key=secret) and lets_in(door, authorization=bearer)
    assert not lets_in(door, authorization=secret) and not lets_in(door, x_api_key=bearer)
    assert not lets_in(door, x_api_key="", authorization=bearer), "an empty key is a wrong one"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_api_key_is_accepted_as_bearer_token_or_password(tmp_path: Path) -> None:
    """Prometheus can send neither custom headers nor changing tokens."""
    now = [1_000.0]
    secret, key = new_api_key("prometheus", ("operator",), "default", 1_010.0)
    door = authenticator(tmp_path, key, clock_s=lambda: now[0])
    good = [
        f"Bearer {secret}",
        f"bearer  {secret}",
        basic("prometheus", secret),
        basic("", secret),
        basic("a b", secret),
    ]
    for credentials in good:
        assert lets_in(door, authorization=credentials)
    wrong = [f"Bearer {secret[:-1]}", basic(secret, ""), basic("prometheus", secret + "x"), basic("a", f"b:{secret}")]
    wrong += [
        f"Basic {secret}",
        "Basic",
        "Basic !",
        "Basic " + base64.b64encode(secret.encode()).decode(),
        f"Basi {secret}",
    ]
    for credentials in wrong:
        assert not lets_in(door, authorization=credentials), credentials
    assert not lets_in(door, x_api_key=good[2])
    now[0] = 1_010.0
    assert not any(lets_in(door, authorization=credentials) for credentials in good), "though they were let in before"


def test_cached_bytes_per_key_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "CREDENTIALS_CACHED_MAX", 3)
    secret, key = new_api_key("shop", ("frontend",), "default", None)
    door, bearer = authenticator(tmp_path, key), f"Bearer {a_token()}"
    assert lets_in(door, authorization=bearer)
    for spaces in (1, 2, 5_000, 3):
        assert lets_in(door, authorization="Bearer " + " " * spaces + secret)
        assert lets_in(door, authorization=basic("x" * spaces, secret))
        assert len(door._checked_tokens) <= 3
        assert sum(map(len, door._checked_tokens)) <= 3 * security.CACHED_BYTES_MAX


@pytest.mark.parametrize("claims", [{"sub": "x" * 257}, {"tenant": "x" * 257}, {"sub": ["a"]}, {"exp": float("nan")}])
def test_token_with_oversized_claims_is_refused(tmp_path: Path, claims: dict[str, Any]) -> None:
    assert not lets_in(authenticator(tmp_path), authorization=f"Bearer {a_token(**claims)}")


NO_TIMES = ["1", "", True, float("nan"), float("inf"), float("-inf"), [1], {"at": 1}, 10**400, 10**18, 1e18, 1e300]
LATER = int(time.time()) + 86_400


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "time_claim", [*NO_TIMES, str(LATER), f" {LATER} "], ids=lambda claim: type(claim).__name__ + str(claim)[:4]
)
def test_token_with_a_non_numeric_time_claim_is_refused(tmp_path: Path, claim: str, time_claim: Any) -> None:
    door, a_time = authenticator(tmp_path), {"exp": LATER, "nbf": 1.5, "iat": 1}
    assert lets_in(door, authorization=f"Bearer {a_token(**a_time)}")
    assert not lets_in(door, authorization=f"Bearer {signed({**a_time, claim: time_claim})}")
    assert not lets_in(door, authorization=f"Bearer {signed({**a_time, claim: None})}")


@pytest.mark.parametrize("subject", ["", " ", "\u200b", "a\nb", "\ud800", "a\udfff", None, 7, ["ada"]])
@pytest.mark.parametrize("claim", ["sub", "tenant"])
def test_token_without_a_visible_name_is_refused(tmp_path: Path, claim: str, subject: Any) -> None:
    assert not lets_in(authenticator(tmp_path), authorization=f"Bearer {signed({'exp': LATER, claim: subject})}")


def test_times_of_a_token_are_bounded_by_the_year_9999(tmp_path: Path) -> None:
    door = authenticator(tmp_path)
    assert lets_in(door, authorization=f"Bearer {signed({'exp': security.TIME_MAX_S})}")
    assert not lets_in(door, authorization=f"Bearer {signed({'exp': security.TIME_MAX_S + 1})}")


REPEATED = ['"sub":"ada","sub":"bob"', '"sub":"ada","s\\u0075b":"ada"', '"sub":"ada","x":{"a":1,"a":2}']


@pytest.mark.parametrize("claims", ['"sub":"ada"', *REPEATED])
def test_token_with_a_repeated_claim_is_refused(tmp_path: Path, claims: str) -> None:
    body = f'{{"aud":"{AUDIENCE}","exp":{LATER},{claims}}}'.encode()
    token = jwt.PyJWS().encode(body, HMAC_SECRET, "HS256", headers={"kid": "k1"})
    assert lets_in(authenticator(tmp_path), authorization=f"Bearer {token}") is (claims == '"sub":"ada"')


@pytest.mark.parametrize("header", ['"kid":"k1"', '"kid":"k2","kid":"k1"'])
def test_token_with_a_repeated_name_in_its_header_is_refused(tmp_path: Path, header: str) -> None:
    encode = jwt.utils.base64url_encode
    signed_part = encode(f'{{"alg":"HS256",{header}}}'.encode()) + b"." + signed({"exp": LATER}).split(".")[1].encode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed_part, HMAC_SECRET)
    token = (signed_part + b"." + encode(signature)).decode()
    assert lets_in(authenticator(tmp_path), authorization=f"Bearer {token}") is ("k2" not in header)


ENOUGH: list[dict[str, Any]] = [{"use": "sig"}, {"key_ops": ["verify"]}, {"use": "sig", "key_ops": ["sign", "verify"]}]
OTHER_USES: list[dict[str, Any]] = [
    {"use": "enc"},
    {"use": None},
    {"key_ops": ["encrypt"]},
    {"key_ops": []},
    {"key_ops": None},
    {"key_ops": "verify"},
    {"use": "enc", "key_ops": ["verify"]},
    {"use": "sig", "key_ops": ["sign"]},
]


@pytest.mark.parametrize("use", [*ENOUGH, *OTHER_USES])
def test_jwks_key_for_another_use_is_ignored(tmp_path: Path, use: dict[str, Any]) -> None:
    [entry] = jwks_of(k1=HMAC_SECRET)["keys"]
    if use in ENOUGH:
        door = authenticator(tmp_path, jwks={"keys": [entry | use]})
        assert lets_in(door, authorization=f"Bearer {a_token()}")
        return
    with pytest.raises(SettingsError, match="key_ops"):
        authenticator(tmp_path, jwks={"keys": [entry | use]})
    if use == {"use": "enc"}:
        [other] = jwks_of(k2=HMAC_SECRET)["keys"]
        door = authenticator(tmp_path, jwks={"keys": [entry, other | use | {"alg": "RSA-OAEP"}]})
        assert lets_in(door, authorization=f"Bearer {a_token()}"), "what identity providers publish beside it"


def signed(claims: dict[str, Any]) -> str:
    """A token with arbitrary claims: PyJWT refuses to sign some."""
    body = json.dumps({"sub": "tests", "aud": AUDIENCE, "roles": ["frontend"], **claims}).encode()
    return jwt.PyJWS().encode(body, HMAC_SECRET, "HS256", headers={"kid": "k1"})


def test_token_with_infinite_expiry_is_refused(tmp_path: Path) -> None:
    assert not lets_in(authenticator(tmp_path), authorization=f"Bearer {a_token(exp=10**400)}")


def test_credentials_checked_during_key_change_are_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door, bearer = authenticator(tmp_path), f"Bearer {a_token()}"
    check = door._by_token

    def change_meanwhile(token: bytes) -> Any:
        found = check(token)
        (tmp_path / "jwks.json").write_text(json.dumps(jwks_of(k2=b"another secret, of 32 bytes or more")))
        assert door.refresh()
        return found

    monkeypatch.setattr(door, "_by_token", change_meanwhile)
    assert lets_in(door, authorization=bearer)
    monkeypatch.undo()
    assert not lets_in(door, authorization=bearer)


def test_credential_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "CREDENTIALS_CACHED_MAX", 3)
    door = authenticator(tmp_path)
    for number in range(10):
        assert lets_in(door, authorization=f"Bearer {a_token(sub=str(number))}")
        assert len(door._checked_tokens) <= 3
