"""What the gateway says of settings that it cannot use, and that the example and the local ones can be used."""

from pathlib import Path

import pytest

from deploy.local.gateway_product import settings_text
from schemas.errors import SettingsError
from serving.gateway.gateway_settings import GatewaySettings, load_gateway_settings

EXAMPLE = Path(__file__).parents[2] / "deploy" / "gateway.toml"
LEAST = (
    'redis.urls = ["redis://h:1"]\nkafka.bootstrap_servers = "h:2"\nauth.api_keys = "f"\n'
    'tenants.a.key_ring = "r"\ntenants.a.tombstone_ms = 1\n'
)


def loaded(tmp_path: Path, text: str) -> GatewaySettings:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return load_gateway_settings(path)


def test_example_is_valid_with_and_without_commented_lines(tmp_path: Path) -> None:
    assert load_gateway_settings(EXAMPLE).tenants["default"].key_ring == "key-ring.json"
    text = EXAMPLE.read_text()
    for setting in ("username", "jwks", "audience", "issuer"):
        assert f"# {setting} = " in text
        text = text.replace(f"# {setting} = ", f"{setting} = ")
    settings = loaded(tmp_path, text)
    assert (settings.redis.username, settings.auth.audience) == ("gateway", "freshet")


def test_minimal_settings_are_enough(tmp_path: Path) -> None:
    settings = loaded(tmp_path, LEAST)
    assert settings.server.host == "127.0.0.1", "nothing listens to the world unless it is told to"
    assert settings.audit.share == 0


def test_local_gateway_settings_are_as_intended(tmp_path: Path) -> None:
    tenant = {"key_ring": 'a "ring" \\ of keys', "tombstone_ms": 5, "redis_prefix": "p:"}
    settings = loaded(tmp_path, settings_text("redis://h:1", "h:2", Path("/k s"), 77, tenant))
    assert settings.tenants["default"].key_ring == tenant["key_ring"]
    assert (settings.redis.urls, settings.auth.jwks, settings.server.port) == (("redis://h:1",), "/k s", 77)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", None),
        ("tenants.a.what = 1", "what"),
        ("server.port = 70000", "server.port"),
        ('server.key_file = "k"', "server.cert_file and server.key_file go together"),
        ('server.client_ca_file = "c"', "server.client_ca_file needs server.cert_file"),
        ('auth.jwks = "j"', "auth.audience"),
        ("audit.share = 1.5", "audit.share"),
        ('audit.purpose = " "', "audit.purpose"),
        ("admission.low_max = 0", "admission.low_max"),
        ('kafka.sasl_mechanism = "NTLM"', "kafka.sasl_mechanism"),
        ('redis.service = "s"', "service"),
        ("nonsense", "gateway.toml"),
    ],
)
def test_invalid_setting_is_named(tmp_path: Path, line: str, complaint: str | None) -> None:
    text = f"{LEAST}{line}\n"
    if complaint is None:
        loaded(tmp_path, text)
        return
    with pytest.raises(SettingsError, match=complaint) as raised:
        loaded(tmp_path, text)
    assert "gateway.toml" in str(raised.value)


@pytest.mark.parametrize("missing", ["redis", "kafka", "auth", "tenants.a.key_ring"])
def test_missing_setting_is_named(tmp_path: Path, missing: str) -> None:
    text = "".join(line for line in LEAST.splitlines(keepends=True) if not line.startswith(missing))
    with pytest.raises(SettingsError, match=missing.rpartition(".")[2]):
        loaded(tmp_path, text)


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_gateway_settings(tmp_path / "nowhere.toml")
