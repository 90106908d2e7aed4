"""The signing key of the audit trail: never shown, and invalid keys are refused precisely."""

import pickle
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from adapters.secrets.signing_keys import SIGNING_KEY_VARIABLE, load_signing_key, write_signing_key
from schemas.errors import SettingsError
from schemas.signing import SigningKey, key_id


def test_new_key_has_owner_rights_and_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "signing-key"
    write_signing_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_signing_key(path)
    key = load_signing_key(str(path))
    Ed25519PublicKey.from_public_bytes(key.public).verify(key.sign(b"x"), b"x")
    assert key.id == key_id(key.public)


def test_the_test_vector_of_rfc_8032_is_met() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey(seed)
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


def test_a_key_may_come_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = "ab" * 32
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, seed)
    key = load_signing_key(None)
    assert seed not in repr(key) and seed not in str(vars(key))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33])
def test_invalid_key_is_refused_without_echo(tmp_path: Path, text: str) -> None:
    path = tmp_path / "signing-key"
    path.write_text(text)
    with pytest.raises(SettingsError, match="is not 64 hexadecimal digits") as raised:
        load_signing_key(str(path))
    assert not text or text not in str(raised.value)


def test_missing_key_names_the_creating_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(SIGNING_KEY_VARIABLE, raising=False)
    with pytest.raises(SettingsError, match="freshet keys new-signing-key"):
        load_signing_key(None)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_signing_key(str(tmp_path / "none"))
