"""Every file that people edit is read as Windows editors save it: byte order mark or UTF-16."""

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.files.tenant_file import load_tenant
from adapters.schema_sources import DirectorySource
from adapters.secrets.key_rings import load_key_ring, new_key_ring, write_key_ring
from adapters.secrets.signing_keys import load_signing_key, write_signing_key
from jobs.settings import load_policy, load_settings
from models import manifest
from models.random_model import random_model
from privacy.audit_verification import _lines_of
from schemas import edited_text
from schemas.errors import FreshetError
from serving.gateway.gateway_settings import load_gateway_settings
from serving.gateway.security import new_api_key, read_api_keys, read_jwks
from tests.support.gateway import HMAC_SECRET, jwks_of
from tests.unit.test_gateway_settings import LEAST

ROOT = Path(__file__).parents[2]
SETTINGS = 'kafka.bootstrap_servers = "b:1"\nredis.url = "redis://c"\nmodel.directory = "/m"\n'
AS_SAVED: dict[str, Callable[[str], bytes]] = {
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big-endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "lines of Windows": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
}


def a_key_ring(path: Path) -> None:
    write_key_ring(new_key_ring(), path)


def api_keys(path: Path) -> None:
    path.write_bytes(msgspec.json.encode([new_api_key("shop", ("frontend",), "default", None)[1]]))


def a_model(path: Path) -> None:
    random_model(path.parent, 30)
    (path.parent / "manifest.json").rename(path)


FILES: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], Any]]] = {
    "settings": ("f.toml", lambda path: path.write_text(SETTINGS), load_settings),
    "policy": (
        "p.toml",
        lambda path: path.write_bytes((ROOT / "deploy" / "consent-policy.toml").read_bytes()),
        lambda path: load_policy(str(path)),
    ),
    "gateway": ("g.toml", lambda path: path.write_text(LEAST), load_gateway_settings),
    "tenant": ("t.toml", lambda path: path.write_text((ROOT / "deploy" / "tenant.toml").read_text()), load_tenant),
    "key ring": ("ring.json", a_key_ring, lambda path: load_key_ring(str(path))),
    "signing key": ("key", write_signing_key, lambda path: load_signing_key(str(path)).id),
    "API keys": ("keys.json", api_keys, lambda path: read_api_keys(str(path))),
    "JWKS": (
        "jwks.json",
        lambda path: path.write_bytes(msgspec.json.encode(jwks_of(k1=HMAC_SECRET))),
        lambda path: sorted(read_jwks(str(path))),
    ),
    "heads": ("heads.jsonl", lambda path: path.write_text('{"bucket":0}\n{"bucket":1}\n'), _lines_of),
    "schema": (
        "7.avsc",
        lambda path: path.write_text('"string"\n'),
        lambda path: DirectorySource(path.parent).fetch("avro", 7).split(),
    ),
    "manifest": ("manifest.json", a_model, lambda path: manifest.load(path.parent)),
}


@pytest.mark.parametrize("saved", AS_SAVED)
@pytest.mark.parametrize("what", FILES)
def test_files_read_the_same_however_an_editor_saves_them(tmp_path: Path, what: str, saved: str) -> None:
    name, write, read = FILES[what]
    path = tmp_path / name
    write(path)
    meant, text = read(path), path.read_text(encoding="utf-8")
    path.write_bytes(AS_SAVED[saved](text))
    assert read(path) == meant


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"\xfe\xff\xd8\x00", b"\xff"])
def test_binary_files_are_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    for read in (load_settings, lambda path: load_policy(str(path)), lambda path: load_key_ring(str(path))):
        with pytest.raises(FreshetError, match=str(path)):
            read(path)


def test_examples_are_true() -> None:
    result = doctest.testmod(edited_text)
    assert result.attempted and not result.failed
