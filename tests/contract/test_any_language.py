"""The documented JavaScript reader, on a real Redis and with the published test vectors."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from adapters.redis.greeting import INSPECT_EVERY_S, REPLICA_LAG_MAX_S, WHOLESALE
from deploy.publish_schemas import PUBLISHED
from schemas.consents import Level
from schemas.lists import encode_list, item_fragment
from schemas.pseudonyms import Pseudonymiser
from schemas.store import all_user_keys, popular_key
from schemas.wire.vectors import published_ring
from tests.support.documented import DOCS, blocks, redis_rights
from tests.support.generations import a_proven_consent, generation
from tests.support.redis_server import RealRedis, running_redis

NODE = shutil.which("node")
PAGE = DOCS / "frontend" / "any-language.md"
SUPPORT = Path(__file__).parents[1] / "support"
VECTORS = json.loads((PUBLISHED / "pseudonyms.json").read_text())
PREFIX = "shop:"
MAIN = """
import { readFileSync } from "node:fs";
import { open } from "./redis_connection.mjs";
import { proof, pseudonyms, readList } from "./reader.mjs";

const { port, login, ring, prefix, users, script, servers } = JSON.parse(readFileSync(0, "utf8"));
const told = { pseudonyms: users.map((user) => pseudonyms(ring, user)), proofs: [], lists: [] };
for (const server of servers) {
  const answers = { server: server.server, replication: server.replication, commandstats: server.commandstats };
  const sendCommand = async ([name, of]) => (name === "INFO" ? answers[of] : server.generation);
  told.proofs.push((await proof({ sendCommand }, prefix).catch(() => "")) || null);
}
if (port) {
  const redis = open(port);
  if (login) await redis.sendCommand(["AUTH", ...login]);
  for (const user of users) told.lists.push(await readList(redis, ring, script, prefix, user, ["country:PT", "all"]));
  redis.close();
}
console.log(JSON.stringify(told));
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def store(server: RealRedis) -> "redis.Redis[bytes]":
    server.client.flushall()
    server.client.script_flush()
    generation(server.client, PREFIX)
    server.client.set(popular_key(PREFIX, "all"), a_list("socks", "popular"))
    return server.client


def a_list(item: str, reason: Any = "personalised") -> bytes:
    return encode_list(7, 1, b'"m"', 1, reason, [item_fragment(item)], [1.0])


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """Runs the documented reader and returns its output."""
    if NODE is None:
        pytest.skip("node is not installed: the documented reader in JavaScript was not run")
    [example] = [text for page, text in blocks("javascript") if page == PAGE]
    (tmp_path / "reader.mjs").write_text(example)
    (tmp_path / "main.mjs").write_text(MAIN)
    shutil.copy(SUPPORT / "redis_connection.mjs", tmp_path)

    def run(**told: Any) -> Any:
        base = {"ring": VECTORS["key_ring"], "prefix": PREFIX, "users": ["ada"], "servers": []}
        script = (PUBLISHED / "read_list.lua").read_text()
        done = subprocess.run(
            [NODE, "main.mjs"],
            cwd=tmp_path,
            input=json.dumps(base | {"script": script} | told),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def read(ask: Any, server: RealRedis) -> Any:
    """Reads the list of `ada` from the server and returns its first item."""
    port = int(server.url.rpartition(":")[2].partition("/")[0])

    def first(**told: Any) -> Any:
        [found] = ask(port=port, **told)["lists"]
        return found and found["items"][0]["id"]

    return first


def keys(which: int = 0) -> tuple[str, str, str, str]:
    """The keys of `ada` under the current pseudonym, or the previous one."""
    return all_user_keys(PREFIX, Pseudonymiser(published_ring()).all("ada")[which])


def permit(store: "redis.Redis[bytes]", item: str = "tea", which: int = 0, level: Level = Level.FULL) -> None:
    own, consent, *_ = keys(which)
    store.set(consent, a_proven_consent(store, PREFIX, level))
    store.set(own, a_list(item))


def test_documented_pseudonyms_match_the_vectors(ask: Any) -> None:
    vectors = VECTORS["vectors"]
    told = ask(users=[one["user_id"] for one in vectors])["pseudonyms"]
    assert told == [[one["current"], one["previous"]] for one in vectors]


def test_documented_server_check_matches_the_vectors(ask: Any) -> None:
    vectors = json.loads((PUBLISHED / "standing.json").read_text())["vectors"]
    told = ask(servers=vectors)["proofs"]
    assert dict(zip([one["name"] for one in vectors], told, strict=True)) == {
        one["name"]: one["proof"] for one in vectors
    }


def test_consenting_user_gets_personal_list_under_either_pseudonym(store: "redis.Redis[bytes]", read: Any) -> None:
    assert read() == "socks"
    permit(store, "old", which=1)
    assert read() == "old"
    permit(store, "new")
    assert read() == "new"


@pytest.mark.parametrize("state", ["none", "absent", "gone", "unproven"])
def test_no_personal_list_is_read_without_consent(store: "redis.Redis[bytes]", read: Any, state: str) -> None:
    permit(store)
    own, consent, gone, _ = keys()
    if state == "none":
        permit(store, level=Level.NONE)
    if state == "absent":
        store.delete(consent)
    if state == "gone":
        store.set(gone, b"1")
    if state == "unproven":
        store.set(consent, b'{"level":"full","expires_at":0,"at":1,"partition":0,"offset":1}')
    assert store.exists(own)
    assert read() == "socks"


def test_no_personal_list_is_read_from_redis_restored_to_an_older_state(
    server: RealRedis, store: "redis.Redis[bytes]", read: Any
) -> None:
    permit(store)
    assert read() == "tea"
    server.kill()
    server.start()
    assert server.client.get(keys()[0]) is not None, "the list is there"
    assert read() == "socks"
    generation(server.client, PREFIX)
    permit(server.client)
    assert read() == "tea"


def test_no_personal_list_is_read_after_keys_are_restored(store: "redis.Redis[bytes]", read: Any) -> None:
    permit(store)
    kept = {key: store.get(key) for key in store.scan_iter(count=1_000)}
    store.flushall()
    store.mset(kept)
    assert read() == "socks"


def test_redis_user_with_documented_rights_can_read(store: "redis.Redis[bytes]", read: Any) -> None:
    store.execute_command("ACL", "SETUSER", "js", "on", ">hush", f"~{PREFIX}*", *redis_rights("reading lists"))
    permit(store)
    assert read(login=["js", "hush"]) == "tea"


def test_page_documents_every_check() -> None:
    text = PAGE.read_text()
    assert all(f"`cmdstat_{name}`" in text and f'calls("{name}")' in text for name in WHOLESALE)
    assert INSPECT_EVERY_S == 1 and "at least once a second" in text
    assert f"{REPLICA_LAG_MAX_S} s." in text
    [example] = [text for page, text in blocks("javascript") if page == PAGE]
    assert len([line for line in example.splitlines() if line]) <= 30
    named = set(re.findall(r"`schemas/wire/published/([\w.-]+)`", text))
    assert named == {"read_list.lua", "read_list.lua.sha1", "pseudonyms.json", "standing.json"} | {
        "list.schema.json",
        "generation.schema.json",
    }
