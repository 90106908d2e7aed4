"""Errors of unusable gateway settings, and that the example and the local settings work."""

import socket
from pathlib import Path

import pytest

from adapters.secrets.key_rings import new_key_ring, write_key_ring
from deploy.local.gateway_product import key_set, settings_text
from freshet.cli.main import run
from schemas.errors import SettingsError
from serving.gateway.gateway_settings import GatewaySettings, load_gateway_settings

EXAMPLE = Path(__file__).parents[2] / "deploy" / "gateway.toml"
LEAST = 'redis.urls = ["redis://h:1"]\nkafka.bootstrap_servers = "h:2"\nauth.api_keys = "f"\ntenants.a = "t.toml"\n'


def loaded(tmp_path: Path, text: str) -> GatewaySettings:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return load_gateway_settings(path)


def test_example_is_valid_with_and_without_commented_lines(tmp_path: Path) -> None:
    assert load_gateway_settings(EXAMPLE).tenants == {"default": "tenant.toml"}
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
    tenant = 'the "file" \\ of a tenant'
    settings = loaded(tmp_path, settings_text("redis://h:1", "h:2", Path("/k s"), 77, tenant))
    assert settings.tenants == {"default": tenant}
    assert (settings.redis.urls, settings.auth.jwks, settings.server.port) == (("redis://h:1",), "/k s", 77)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", None),
        ('tenants.b.key_ring = "r"', r"tenants.*: a tenant is a file that its job reads, too\. Move its settings"),
        ('kafka.topic_prefix = "shop."', "kafka.topic_prefix is for the tenant file"),
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
        ('tenants."" = "t.toml"', "name of a tenant must have a visible character"),
        ('tenants."a\\u001b" = "t.toml"', "name of a tenant must have a visible character"),
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


@pytest.mark.parametrize("missing", ["redis", "kafka", "auth", "tenants"])
def test_missing_setting_is_named(tmp_path: Path, missing: str) -> None:
    text = "".join(line for line in LEAST.splitlines(keepends=True) if not line.startswith(missing))
    with pytest.raises(SettingsError, match=missing.rpartition(".")[2]):
        loaded(tmp_path, text)


def test_gateway_needs_a_key_ring_in_each_tenant_file(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    settings = loaded(tmp_path, LEAST.replace("t.toml", str(file)))
    with pytest.raises(SettingsError, match=r"tenant file .*t\.toml cannot be read"):
        settings.tenant("a")
    file.write_text('topic_prefix = "shop."')
    with pytest.raises(SettingsError, match=r"t\.toml has no key_ring"):
        settings.tenant("a")
    file.write_text('key_ring = "ring.json"')
    assert settings.tenant("a").key_ring == str(tmp_path / "ring.json")


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_gateway_settings(tmp_path / "nowhere.toml")


def test_gateway_on_a_used_port_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_key_ring(new_key_ring(), tmp_path / "ring.json")
    (tmp_path / "tenant.toml").write_text('key_ring = "ring.json"\n')
    (tmp_path / "jwks.json").write_bytes(key_set(b"k" * 32))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "gateway.toml"
        path.write_text(settings_text("redis://c", "b:1", tmp_path / "jwks.json", port, str(tmp_path / "tenant.toml")))
        assert run(["gateway", "run", "--settings", str(path)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in capsys.readouterr().err
