"""Authentication: JSON Web Tokens, verified with keys from a file, and API keys, stored as hashes only.

An API key comes in `X-API-Key`, as the token of `Authorization: Bearer`, or as the password of `Authorization: Basic`,
because clients such as Prometheus cannot send custom headers.

A token names its key by `kid`, and the key determines the algorithm; the token's `alg` is not trusted. Roles and tenant
come only from the token or the API key. No secret is ever logged or sent.
"""

import base64
import hashlib
import json
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import jwt
import msgspec
from msgspec import UNSET, Meta, UnsetType

from adapters.secrets.secret_files import read_secret_file
from schemas.decoding import SHA256_PATTERN, described
from schemas.errors import SettingsError
from schemas.events import EVENT_TS_MAX
from schemas.ids import NAME_PATTERN
from serving.gateway.problems import bad_token, unauthenticated
from serving.gateway.roles import ROLES, URGENCY_BEST, Role, opened_by

ALGORITHMS: Final = ("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "EdDSA")
HMAC_KEY_BYTES_MIN: Final = 32
CREDENTIALS_CACHED_MAX: Final = 10_000
CACHED_BYTES_MAX: Final = 2_048
"""Longer credentials are not cached, so that the cache is bounded in bytes, too."""
NAME_LENGTH_MAX: Final = 256
"""Applies to a token's `sub` and `tenant`, which rate limits are keyed by."""
CLIENT_NAME_RULE: Final = (
    f"must have a visible character, at most {NAME_LENGTH_MAX} characters, and no control characters"
)
API_KEY_BYTES: Final = 32
KEY_ID_LENGTH_MAX: Final = 64
LEEWAY_S: Final = 30
TIME_MAX_S: Final = EVENT_TS_MAX // 1000
"""The end of the year 9999: a later time in a token is an error."""
TIMES: Final = ("exp", "nbf", "iat")
"""Claims that must be a NumericDate (RFC 7519); PyJWT accepts anything that Python can convert to a number."""
RSA_BITS_MIN: Final = 2_048


class Principal(msgspec.Struct, frozen=True, gc=False):
    """An authenticated client. `subject` identifies it in rate limits, `role` is its first role.

    `opens` maps each permitted route to the role that permits it. `urgency_best` is the most urgent value of RFC 9218
    that the client may request. `expires_at` is in s since the epoch.
    """

    subject: str
    role: str
    tenant: str
    opens: Mapping[str, str]
    urgency_best: int
    expires_at: float

    def role_for(self, route: str) -> str:
        """The role to name in metrics and audit: the one that permits `route`, else the first."""
        return self.opens.get(route, self.role)


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key as stored in the file: only its SHA-256, which is enough because keys are random."""

    id: Annotated[str, Meta(min_length=1, max_length=KEY_ID_LENGTH_MAX)]
    sha256: Annotated[str, Meta(pattern=SHA256_PATTERN)]
    roles: Annotated[tuple[Role, ...], Meta(min_length=1)]
    tenant: Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)] = "default"
    expires_at: float | UnsetType = UNSET
    """In s since the epoch; absent: never. Null is rejected: earlier releases wrote it for values that are not
    numbers."""


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How clients authenticate. Set `api_keys`, `jwks`, or both; the files are read again when they change."""

    api_keys: str | None = None
    """The file with hashes of API keys. `freshet gateway new-api-key` adds one."""
    jwks: str | None = None
    """The JWKS file with the keys of JSON Web Tokens, each with `kid` and `alg`."""
    issuer: str | None = None
    """The issuer (`iss`) that tokens must have."""
    audience: str | None = None
    """The audience (`aud`) that tokens must have. Required with `jwks`."""


class Authenticator:
    """Authenticates a request by its headers. Caches results until they expire.

    Raises :class:`SettingsError` if the files cannot be used.
    """

    def __init__(self, settings: AuthSettings, clock_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock_s = clock_s
        self._checked_keys: dict[bytes, Principal] = {}
        self._checked_tokens: dict[bytes, Principal] = {}
        self._read_at: dict[str, int] = {}
        self._api_keys: dict[str, ApiKey] = {}
        self._jwks: dict[str, jwt.PyJWK] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Reload the files if they have changed, and clear the cache; returns whether they had.

        Raises :class:`SettingsError` if the new files cannot be used; the previous keys then stay in use.
        """
        paths = [path for path in (self._settings.api_keys, self._settings.jwks) if path is not None]
        read_at = {path: _changed_at(path) for path in paths}
        if read_at == self._read_at and paths:
            return False
        api_keys, jwks = read_api_keys(self._settings.api_keys), read_jwks(self._settings.jwks)
        self._api_keys, self._jwks, self._read_at = api_keys, jwks, read_at
        # Replace the caches: a check by the old keys in another thread then fills a cache that is no longer used.
        self._checked_keys, self._checked_tokens = {}, {}
        return True

    def principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Authenticate a request. Raises :class:`Problem` (401)."""
        credentials, is_key = headers.get(b"x-api-key"), True
        if credentials is None:
            credentials, is_key = headers.get(b"authorization"), False
        if credentials is None:
            raise unauthenticated()
        checked = self._checked_keys if is_key else self._checked_tokens
        known = checked.get(credentials)
        now_s = self._clock_s()
        if known is not None and now_s < known.expires_at:
            return known
        found = self._by_api_key(credentials, now_s) if is_key else self._by_authorization(credentials, now_s)
        if len(credentials) <= CACHED_BYTES_MAX:
            while len(checked) >= CREDENTIALS_CACHED_MAX:
                del checked[next(iter(checked))]
            checked[credentials] = found
        return found

    def _by_authorization(self, authorization: bytes, now_s: float) -> Principal:
        scheme, _, given = authorization.partition(b" ")
        scheme, given = scheme.lower(), given.strip()
        if scheme == b"basic":
            return self._by_api_key(_password(given), now_s)
        if scheme != b"bearer":
            raise unauthenticated()
        if _sha256(given) in self._api_keys:
            return self._by_api_key(given, now_s)
        return self._by_token(given)

    def _by_api_key(self, api_key: bytes, now_s: float) -> Principal:
        found = self._api_keys.get(_sha256(api_key))
        if found is None:
            raise bad_token()
        expires_at = math.inf if isinstance(found.expires_at, UnsetType) else found.expires_at
        if not now_s < expires_at:
            raise bad_token()
        return _principal(found.id, found.roles, found.tenant, expires_at)

    def _by_token(self, token: bytes) -> Principal:
        try:
            _refuse_repeated_names(token)
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._jwks[kid] if kid is not None else _the_only(self._jwks)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[str(key.algorithm_name)],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub"], "verify_aud": self._settings.audience is not None},
            )
            roles, tenant, subject = claims.get("roles", []), claims.get("tenant", "default"), claims["sub"]
            if not isinstance(roles, list) or not is_client_name(tenant) or not is_client_name(subject):
                raise bad_token()
            if not all(_is_time(claims[name]) for name in TIMES if name in claims):
                raise bad_token()
            expires_at = float(claims["exp"]) + LEEWAY_S
        except (jwt.PyJWTError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
            raise bad_token() from None
        return _principal(subject, [role for role in ROLES if role in roles], tenant, expires_at)


_seen: Final = re.compile(NAME_PATTERN).match


def is_client_name(claim: Any) -> bool:
    """Whether a claim can identify a client or a tenant: text with visible characters that can be encoded."""
    return isinstance(claim, str) and len(claim) <= NAME_LENGTH_MAX and _seen(claim) is not None


def _is_time(claim: Any) -> bool:
    return isinstance(claim, int | float) and not isinstance(claim, bool) and -TIME_MAX_S <= claim <= TIME_MAX_S


def _refuse_repeated_names(token: bytes) -> None:
    """Raise ValueError for a header or claims with a repeated name: parsers differ on which one counts."""
    for part in token.split(b".")[:2]:
        json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)), object_pairs_hook=_of_single_names)


def _of_single_names(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError
    return found


def _sha256(api_key: bytes) -> str:
    return hashlib.sha256(api_key).hexdigest()


def _password(credentials: bytes) -> bytes:
    """The password in Basic credentials (RFC 7617). Raises :class:`Problem` (401)."""
    try:
        _, separator, password = base64.b64decode(credentials, validate=True).partition(b":")
    except ValueError:
        raise bad_token() from None
    if not separator:
        raise bad_token()
    return password


def _principal(subject: str, roles: "list[Role] | tuple[Role, ...]", tenant: str, expires_at: float) -> Principal:
    best = min((URGENCY_BEST[role] for role in roles), default=7)
    return Principal(subject, roles[0] if roles else "none", tenant, opened_by(roles), best, expires_at)


def _the_only(jwks: dict[str, jwt.PyJWK]) -> jwt.PyJWK:
    if len(jwks) != 1:
        raise KeyError
    return next(iter(jwks.values()))


def _changed_at(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return -1


def read_api_keys(path: str | None) -> dict[str, ApiKey]:
    """Load API keys from a file, by their hash; raises :class:`SettingsError`."""
    if path is None:
        return {}
    try:
        keys = msgspec.json.decode(read_secret_file("the file of API keys", path), type=list[ApiKey])
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not a file of API keys: {described(error)}") from None
    if len({key.id for key in keys}) < len(keys):
        raise SettingsError(f"{path}: two API keys have the same id")
    return {key.sha256: key for key in keys}


def read_jwks(path: str | None) -> dict[str, jwt.PyJWK]:
    """Load a JSON Web Key Set, by `kid`; raises :class:`SettingsError`, which reveals none of the keys."""
    if path is None:
        return {}
    try:
        published = msgspec.json.decode(read_secret_file("the key set", path))["keys"]
        found = [entry for entry in published if not _is_for_another_use(entry)]
        keys = {entry["kid"]: _jwk(entry) for entry in found}
    except (LookupError, TypeError, ValueError, RecursionError, jwt.PyJWTError):
        raise SettingsError(
            f"{path} is not a usable key set: each of `keys` needs `kid`, `kty` and `alg`, one of "
            f"{', '.join(ALGORITHMS)}; HMAC keys {HMAC_KEY_BYTES_MIN} bytes or more, RSA keys {RSA_BITS_MIN} bits; "
            "if present, `use` must be a string and `key_ops` a list of strings"
        ) from None
    if not keys:
        raise SettingsError(f"{path} has no key that verifies: `use` must be sig, and `key_ops` must have verify")
    if len(keys) < len(found):
        raise SettingsError(f"{path}: two keys have the same kid")
    return keys


def _is_for_another_use(entry: dict[str, Any]) -> bool:
    """Whether a key cannot verify: providers publish encryption keys in the same set (RFC 7517, 4.2).

    Raises `ValueError` if its `use` or `key_ops` are not as in the RFC.
    """
    use, operations = entry.get("use", "sig"), entry.get("key_ops", ["verify"])
    if not isinstance(use, str) or not isinstance(operations, list) or not all(isinstance(o, str) for o in operations):
        raise ValueError
    return use != "sig" or "verify" not in operations


def _jwk(entry: dict[str, Any]) -> jwt.PyJWK:
    if entry["alg"] not in ALGORITHMS or not isinstance(entry["kid"], str):
        raise ValueError
    key = jwt.PyJWK(entry)
    is_short = len(key.key) < HMAC_KEY_BYTES_MIN if isinstance(key.key, bytes) else _bits(key.key) < RSA_BITS_MIN
    if is_short:
        raise ValueError
    return key


def _bits(key: Any) -> int:
    """The length of an RSA key; other keys have a fixed length."""
    return int(getattr(key, "key_size", RSA_BITS_MIN))


def new_api_key(id: str, roles: tuple[Role, ...], tenant: str, expires_at: float | None) -> tuple[str, ApiKey]:
    """Create a random key, to be shown once, and its entry for the file."""
    if expires_at is not None and not math.isfinite(expires_at):  # JSON would store null
        raise ValueError("an API key must expire at a finite time, or never")
    key = "freshet_" + secrets.token_urlsafe(API_KEY_BYTES)
    return key, ApiKey(
        id, hashlib.sha256(key.encode()).hexdigest(), roles, tenant, UNSET if expires_at is None else expires_at
    )
