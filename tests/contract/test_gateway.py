"""The gateway as frontends see it, on a real Redis: permissions, responses and refusals."""

import contextlib
import gzip
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from adapters.secrets.key_rings import begin_rotation, new_key_ring, write_key_ring
from adapters.waiting import until
from deploy.local.ports import LOOPBACK
from schemas.consents import Level
from schemas.lists import with_history
from schemas.pseudonyms import Pseudonymiser
from schemas.store import consent_value, user_keys
from serving.gateway.heads import HEAD_BYTES_MAX, PATH_BYTES_MAX
from serving.gateway.roles import ROLES, ROUTES, Role, Route
from tests.support.gateway import (
    HMAC_SECRET,
    RunningGateway,
    a_list,
    a_token,
    give_list,
    give_popular,
    give_similar,
    running_gateway,
)
from tests.support.generations import empty
from tests.support.redis_server import RealRedis, running_redis

ITEMS = ["tea", "cup", "pot"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module", params=["true", "false"], ids=["fast lane", "ASGI only"])
def gateway(
    server: RealRedis, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[RunningGateway]:
    lane = f"server.fast_lane = {request.param}"
    with running_gateway(tmp_path_factory.mktemp("gateway"), server.url, server=lane) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def store(server: RealRedis, gateway: RunningGateway) -> Any:
    empty(server.client)
    give_list(server.client, gateway.rings["default"], "ada", ITEMS)
    give_popular(server.client, ["socks", "scarf"])
    return server.client


def keys_of(gateway: RunningGateway, user: str) -> tuple[str, str, str]:
    return user_keys("default:", Pseudonymiser(gateway.rings["default"]).user(user))


def ids(answer: Any) -> list[str]:
    return [item["id"] for item in answer.json()["items"]]


# -- permissions


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("role", [None, *ROLES])
@pytest.mark.promise("roles")
def test_gateway_enforces_the_role_table(gateway: RunningGateway, name: str, role: Role | None) -> None:
    route: Route = ROUTES[name]
    answer = gateway.ask(
        route.method, route.path.replace("{user}", "ada").replace("{item}", "tea").replace("{id}", "1"), role
    )
    if not route.roles:
        assert answer.status_code == 200
    elif role is None:
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    elif role in route.roles:
        assert answer.status_code not in (401, 403)
    else:
        assert answer.status_code == 403


def test_openapi_routes_match_the_role_table(gateway: RunningGateway) -> None:
    document = gateway.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert ":func:" not in json.dumps(document)
    open_to_all = {
        path for path, its in document["paths"].items() if any(one.get("security") == [] for one in its.values())
    }
    assert open_to_all == {"/livez", "/readyz"}
    assert described | {("GET", "/openapi.json")} == {(route.method, route.path) for route in ROUTES.values()}


def bad_tokens() -> dict[str, str]:
    """Tokens that are valid except for one thing."""
    rsa_key = rsa.generate_private_key(65537, 2048)
    good = a_token()
    head, body, signature = good.split(".")
    other_body = a_token(roles=["admin"]).split(".")[1]
    return {
        "no algorithm": a_token("", algorithm="none"),
        "another key": a_token(b"another secret, of 32 bytes or more too"),
        "an algorithm of the token's choice": a_token(HMAC_SECRET * 2, algorithm="HS512"),
        "RSA where HMAC is": a_token(rsa_key, algorithm="RS256"),
        "expired": a_token(exp=time.time() - 60),
        "never expires": a_token(exp=None),
        "not yet": a_token(nbf=time.time() + 600),
        "for somebody else": a_token(aud="another-service"),
        "for nobody": a_token(aud=None),
        "without a subject": a_token(sub=None),
        "an unknown key": a_token(kid="k2"),
        "a key that is no text": jwt.encode({"sub": "x"}, HMAC_SECRET, headers={"kid": "../../etc/passwd"}),
        "its signature stripped": f"{head}.{body}.",
        "no signature": f"{head}.{body}",
        "another body": f"{head}.{other_body}.{signature}",
        "nonsense": "x" * 300,
        "roles that are no list": a_token(roles="frontend"),
        "a tenant that is no text": a_token(tenant=7),
    }


BAD_TOKENS = bad_tokens()


@pytest.mark.parametrize("what", BAD_TOKENS)
@pytest.mark.promise("roles")
def test_invalid_token_is_rejected(gateway: RunningGateway, what: str) -> None:
    answer = gateway.get("/v1/recommendations/ada", None, authorization=f"Bearer {BAD_TOKENS[what]}")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:freshet:problem:bad-credentials"


def test_token_of_unknown_tenant_is_rejected(gateway: RunningGateway) -> None:
    answer = gateway.get("/v1/recommendations/ada", None, authorization=f"Bearer {a_token(tenant='other')}")
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:freshet:problem:unknown-tenant")


def test_valid_token_opens_routes_of_its_roles(gateway: RunningGateway) -> None:
    for scheme in ("Bearer", "bearer"):
        answer = gateway.get("/v1/recommendations/ada", None, authorization=f"{scheme} {a_token()}")
        assert ids(answer) == ITEMS
    refused = gateway.get("/metrics", None, authorization=f"Bearer {a_token()}")
    assert refused.status_code == 403
    nobody = gateway.get("/v1/recommendations/ada", None, authorization=f"Bearer {a_token(roles=['chef'])}")
    assert nobody.status_code == 403


def test_changed_keys_and_key_sets_are_reloaded(server: RealRedis, tmp_path: Any) -> None:
    with running_gateway(tmp_path, server.url) as gateway:
        key, private = ed25519.Ed25519PrivateKey.generate(), a_token
        new = private(key, algorithm="EdDSA", kid="ed")
        assert gateway.get("/v1/popular", None, authorization=f"Bearer {new}").status_code == 401
        public = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        (tmp_path / "jwks.json").write_text(f'{{"keys": [{json.dumps({**public, "kid": "ed", "alg": "EdDSA"})}]}}')
        (tmp_path / "api-keys.json").write_text("[]")
        until(
            lambda: gateway.get("/v1/popular", None, authorization=f"Bearer {new}").status_code == 200, "new keys", 30
        )
        assert gateway.get("/v1/popular", "frontend").status_code == 401, "a key that was taken out"
        old = gateway.get("/v1/popular", None, authorization=f"Bearer {a_token()}")
        assert old.status_code == 401, "a token of a key that was taken out, though it was let in before"
        (tmp_path / "jwks.json").write_text("nonsense")
        until(lambda: "the previous ones stay in use" in gateway.logged(), "the complaint", 30)
        assert gateway.get("/v1/popular", None, authorization=f"Bearer {new}").status_code == 200


# -- responses


def test_list_is_returned_as_stored_in_redis(gateway: RunningGateway, store: Any) -> None:
    whole = gateway.get("/v1/recommendations/ada?n=100")
    assert whole.content == store.get(keys_of(gateway, "ada")[0])
    assert ids(gateway.get("/v1/recommendations/ada?n=2")) == ["tea", "cup"]
    assert ids(gateway.get("/v1/recommendations/nobody")) == ["socks", "scarf"]


def test_list_is_found_under_either_pseudonym_during_rotation(server: RealRedis, tmp_path: Path) -> None:
    before, path = new_key_ring(), tmp_path / "ring.json"
    write_key_ring(begin_rotation(before, 1), path)
    with running_gateway(tmp_path / "gateway", server.url, default=str(path)) as gateway:
        give_list(server.client, before, "not-moved", ["tea"])
        give_list(server.client, gateway.rings["default"], "moved", ["cup"])
        assert ids(gateway.get("/v1/recommendations/nobody")) == ["socks", "scarf"]  # held from here on
        assert ids(gateway.get("/v1/recommendations/not-moved")) == ["tea"]
        assert ids(gateway.get("/v1/recommendations/moved")) == ["cup"]


def test_filters_remove_items(gateway: RunningGateway) -> None:
    assert ids(gateway.get("/v1/recommendations/ada?exclude=tea&exclude=pot")) == ["cup"]
    everything = "&".join(f"exclude={item}" for item in ITEMS)
    answer = gateway.get(f"/v1/recommendations/ada?{everything}")
    assert (ids(answer), answer.json()["reason"]) == (["socks", "scarf"], "popular")


@pytest.mark.parametrize(
    "user",
    [
        "a b",
        "ä/ö",
        "a%2Fb",
        "..",
        "../../x",
        "x" * 256,
        "%00",
        "ada?n=1",
        "{user}",
        "👩‍👩‍👧‍👦",
        "می‌روم",
        "a\u00a0b",
        "\u200f" * 256,
    ],
)
def test_any_user_id_is_accepted_in_a_path(gateway: RunningGateway, store: Any, user: str) -> None:
    from urllib.parse import quote

    give_list(store, gateway.rings["default"], user, ["mine"])
    answer = raw_get(gateway, f"/v1/recommendations/{quote(user, safe='')}")
    assert b" 200 " in answer and b'"mine"' in answer


@pytest.mark.parametrize(
    "query",
    ["n=0", "n=101", "n=x", "n=-1", "n=1&n=2", "n=", "n=%31%32%33%34", "surface=", "&&", "n", "%6e=0",
     "segment=" + "x" * 101, "exclude=", "category=%ff", "n=٣"],
)  # fmt: skip
def test_invalid_query_is_refused_with_the_reason(gateway: RunningGateway, query: str) -> None:
    answer = raw_get(gateway, f"/v1/recommendations/ada?{query}".encode())
    assert b" 400 " in answer and b"urn:freshet:problem:bad-request" in answer


@pytest.mark.parametrize("more", ["utm_source=news", "fbclid", "utm=%ff&utm=%zz", "x=1&x=2", "what=" + "y" * 500])
@pytest.mark.parametrize("path", ["/v1/recommendations/ada", "/v1/popular"])
def test_unknown_parameters_are_ignored_and_counted(gateway: RunningGateway, path: str, more: str) -> None:
    route = path.split("/")[2]

    def ignored() -> float:
        told = gateway.get("/metrics", "operator").text
        line = re.search(rf'freshet_gateway_ignored_parameters_total{{route="{route}"}} (.*)', told)
        return 0.0 if line is None else float(line[1])

    before = ignored()
    answer = raw_get(gateway, f"{path}?{more}&n=1")
    assert b" 200 " in answer and answer.count(b'"id":') == 1
    assert ignored() == before + more.count("&") + 1
    assert "utm" not in gateway.get("/metrics", "operator").text, "their names are anybody's bytes"
    assert ignored() == before + more.count("&") + 1


def test_unchanged_response_is_not_modified_while_consent_holds(gateway: RunningGateway, store: Any) -> None:
    first = gateway.get("/v1/recommendations/ada")
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    again = gateway.get("/v1/recommendations/ada", **{"if-none-match": f'"x", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    store.set(keys_of(gateway, "ada")[1], consent_value(Level.NONE, 0, 2, 0, 2))
    withdrawn = gateway.get("/v1/recommendations/ada", **{"if-none-match": tag})
    assert (withdrawn.status_code, ids(withdrawn)) == (200, ["socks", "scarf"])


def test_same_list_under_another_consent_has_another_etag(gateway: RunningGateway, store: Any) -> None:
    """After an erasure, versions start again and may reach earlier values."""
    tag = gateway.get("/v1/recommendations/ada").headers["etag"]
    give_list(store, gateway.rings["default"], "ada", ITEMS, place=9)
    assert gateway.get("/v1/recommendations/ada", **{"if-none-match": tag}).status_code == 200


def test_popular_list_is_publicly_cacheable(gateway: RunningGateway, store: Any) -> None:
    give_popular(store, ["umbrella"], "country:GB")
    answer = gateway.get("/v1/popular?segment=country:GB&n=1")
    assert ids(answer) == ["umbrella"]
    assert answer.headers["cache-control"].startswith("public, max-age=1, stale-while-revalidate=")
    assert "stale-if-error" in answer.headers["cdn-cache-control"] and "vary" not in answer.headers
    assert answer.headers["surrogate-key"] == "popular/default/country:GB popular/default/all"
    known = {"if-none-match": answer.headers["etag"]}
    assert gateway.get("/v1/popular?segment=country:GB&n=1", **known).status_code == 304


def test_what_a_user_met_and_bought(gateway: RunningGateway, store: Any) -> None:
    key = keys_of(gateway, "ada")[0]
    store.set(key, with_history(store.get(key), ["jam", "tea", "oil"], ["oil", "tea"]))
    viewed = gateway.get("/v1/users/ada/recently-viewed?n=2&exclude=tea")
    assert (ids(viewed), viewed.json()["reason"]) == (["jam", "oil"], "viewed")
    assert viewed.headers["cache-control"] == "no-store"
    bought = gateway.get("/v1/users/ada/buy-again")
    assert (ids(bought), bought.json()["reason"], bought.json()["v"]) == (["oil", "tea"], "bought", viewed.json()["v"])
    for query in ("", "?n=2", "?n=100", "?exclude=cup"):
        answer = gateway.get(f"/v1/recommendations/ada{query}").json()
        assert answer.keys() == {"v", "epoch", "model", "at", "reason", "items"}, "not asked for"
    assert ids(gateway.get("/v1/users/nobody/recently-viewed")) == []
    assert gateway.get("/v1/users/ada/buy-again?n=0").status_code == 400
    assert gateway.ask("DELETE", "/v1/users/ada", "privacy").status_code in (200, 503)
    assert ids(gateway.get("/v1/users/ada/buy-again")) == [], "erased"


def test_popular_items_of_a_category_are_publicly_cacheable(gateway: RunningGateway, store: Any) -> None:
    nothing = gateway.get("/v1/popular?category=wool")
    assert (ids(nothing), nothing.headers["cache-control"]) == ([], "no-store"), "no catalogue knows what is of wool"
    give_popular(store, ["socks", "scarf"], "category:tea & more")
    answer = gateway.get("/v1/popular?category=tea+%26+more&n=1")
    assert (ids(answer), answer.json()["reason"]) == (["socks"], "popular")
    assert answer.headers["surrogate-key"] == "popular/default/category:tea%20%26%20more"
    known = {"if-none-match": answer.headers["etag"]}
    assert gateway.get("/v1/popular?category=tea+%26+more&n=1", **known).status_code == 304


def test_similar_items_are_publicly_cacheable(gateway: RunningGateway, store: Any) -> None:
    give_similar(store, "tea", ["cup", "pot", "jam"])
    answer = gateway.get("/v1/items/tea/similar?n=2")
    assert (ids(answer), answer.json()["reason"]) == (["cup", "pot"], "similar")
    assert answer.headers["cache-control"].startswith("public, max-age=1, stale-while-revalidate=")
    assert "vary" not in answer.headers and "surrogate-key" not in answer.headers, "it depends on no popular list"
    known = {"if-none-match": answer.headers["etag"]}
    assert gateway.get("/v1/items/tea/similar?n=2", **known).status_code == 304
    store.delete("default:similar:tea")
    gone = gateway.get("/v1/items/tea/similar?n=2", **known)
    assert (gone.status_code, ids(gone)) == (200, ["socks", "scarf"]), "a popular list of the same version is another"


def test_unknown_item_gets_a_popular_list_without_itself(gateway: RunningGateway) -> None:
    answer = gateway.get("/v1/items/socks/similar")
    assert (answer.status_code, ids(answer), answer.json()["reason"]) == (200, ["scarf"], "popular")
    assert answer.headers["surrogate-key"] == "popular/default/all"
    assert gateway.get("/v1/items/socks/similar", **{"if-none-match": answer.headers["etag"]}).status_code == 304


def test_unknown_item_falls_back_to_its_surface_and_segment(gateway: RunningGateway, store: Any) -> None:
    give_popular(store, ["umbrella"], "country:GB")
    assert ids(gateway.get("/v1/items/nothing/similar?segment=country:GB")) == ["umbrella"]


@pytest.mark.parametrize(
    ("item", "raw"),
    [
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        ("{tag}", "%7Btag%7D"),
        ("thé 茶", "th%C3%A9%20%E8%8C%B6"),
        ("similar", "similar"),
        ("100%", "100%25"),
        ("*", "*"),
    ],
)
def test_any_item_id_finds_its_list(gateway: RunningGateway, store: Any, item: str, raw: str) -> None:
    give_similar(store, item, ["cup"])
    answer = raw_get(gateway, f"/v1/items/{raw}/similar")
    assert b" 200 " in answer and b'"id":"cup"' in answer


@pytest.mark.parametrize("raw", [b"%00", b"%0a", b"%ff", b"%zz", b"x" * 65, b"%E2%80%AE", b"tea%0d%0aDEL"])
def test_hostile_item_id_is_refused_without_echo(gateway: RunningGateway, raw: bytes) -> None:
    answer = raw_get(gateway, b"/v1/items/" + raw + b"/similar")
    assert b" 400 " in answer and b"urn:freshet:problem:bad-request" in answer and raw not in answer


@pytest.mark.parametrize(
    "path", ["/v1/items//similar", "/v1/items/a/b/similar", "/v1/items/tea", "/v1/items/tea/similar/"]
)
def test_other_paths_of_items_are_not_found(gateway: RunningGateway, path: str) -> None:
    assert b" 404 " in raw_get(gateway, path)


@pytest.mark.parametrize("path", ["/v1/items/tea/similar", "/v1/trending"])
def test_lists_for_everybody_take_no_filters(gateway: RunningGateway, path: str) -> None:
    for query in ("exclude=x", "category=tea", "n=0", "n=101"):
        assert gateway.get(f"{path}?{query}").status_code == 400


def test_cart_gets_items_similar_to_several_of_its_items(gateway: RunningGateway, store: Any) -> None:
    give_similar(store, "tea", ["milk", "cup", "pot"])
    give_similar(store, "cup", ["tea", "pot", "saucer"])
    answer = gateway.ask("POST", "/v1/recommendations", json={"items": ["tea", "cup", "new", "tea"], "n": 2})
    assert (ids(answer), answer.json()["reason"]) == (["pot", "milk"], "similar")
    assert answer.headers["cache-control"] == "no-store"


def test_cart_of_unknown_items_gets_a_popular_list_without_them(gateway: RunningGateway, store: Any) -> None:
    answer = gateway.ask("POST", "/v1/recommendations", json={"items": ["socks"]})
    assert (ids(answer), answer.json()["reason"]) == (["scarf"], "popular")
    give_similar(store, "socks", ["socks"])
    assert ids(gateway.ask("POST", "/v1/recommendations", json={"items": ["socks"]})) == ["scarf"]


@pytest.mark.parametrize(
    "body",
    [
        {"items": []},
        {"items": ["hush"] * 51},
        {"items": ["hush" * 17]},
        {"items": ["hush\n"]},
        {"items": ["hush\u202e"]},
        {"items": ["tea"], "user_id": "hush"},
        {"items": ["tea"], "n": 101},
        {"items": "hush"},
        ["hush"],
    ],
)
def test_invalid_cart_is_refused_without_echo(gateway: RunningGateway, body: Any) -> None:
    answer = gateway.ask("POST", "/v1/recommendations", json=body)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:freshet:problem:bad-request")
    assert "hush" not in answer.text + gateway.logged()


def test_cart_is_not_logged(gateway: RunningGateway) -> None:
    assert gateway.ask("POST", "/v1/recommendations", json={"items": ["hush-in-the-cart"]}).status_code == 200
    until(lambda: '"cart"' in gateway.logged(), "its line in the log", 20)
    assert "hush-in-the-cart" not in gateway.logged()


def test_trending_items_are_publicly_cacheable(gateway: RunningGateway, store: Any) -> None:
    before = gateway.get("/v1/trending")
    assert (ids(before), before.json()["reason"]) == (["socks", "scarf"], "popular"), "nothing rises"
    store.set("default:popular:trending", a_list("lamp", "tea", reason="trending"))
    until(lambda: ids(gateway.get("/v1/trending")) == ["lamp", "tea"], "the trend", 20)
    answer = gateway.get("/v1/trending?n=1")
    assert (ids(answer), answer.json()["reason"]) == (["lamp"], "trending")
    assert answer.headers["surrogate-key"] == "popular/default/trending popular/default/all"
    known = {"if-none-match": answer.headers["etag"]}
    assert gateway.get("/v1/trending?n=1", **known).status_code == 304
    assert gateway.get("/v1/trending", **{"if-none-match": before.headers["etag"]}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/recommendations/ada", "/v1/popular"])
def test_if_none_match_accepts_several_headers_and_a_star(gateway: RunningGateway, path: str) -> None:
    tag = gateway.get(path).headers["etag"]
    key = ("X-API-Key", gateway.keys["frontend"])
    for known in (["*"], [tag, '"other"'], ['"other"', tag], [f'"other", W/{tag}']):
        lines = [key, *(("If-None-Match", value) for value in known)]
        assert gateway.http.get(path, headers=lines).status_code == 304
    assert gateway.http.get(path, headers=[key, ("If-None-Match", '"other"')]).status_code == 200
    assert gateway.http.get(path, headers=[key, key]).status_code == 401, "which of the two?"


def test_rate_limit_headers_are_sent(gateway: RunningGateway) -> None:
    for path in ("/v1/recommendations/ada", "/v1/popular"):
        headers = gateway.get(path).headers
        assert headers["ratelimit-policy"].startswith('"key";q=') and headers["ratelimit"].startswith('"key";r=')


@pytest.mark.parametrize("path", ["/v1/popular", "/v1/recommendations/ada", "/livez"])
def test_head_returns_get_headers_without_body(gateway: RunningGateway, path: str) -> None:
    whole, head = gateway.get(path), gateway.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"") and whole.content
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert head.headers.get(name) == whole.headers.get(name)


def test_deadline_header_is_validated_and_kept(gateway: RunningGateway) -> None:
    assert gateway.get("/v1/recommendations/ada", **{"freshet-deadline-ms": "500"}).status_code == 200
    for wrong in ("0", "-1", "soon", "99999", "1" * 5_000):
        answer = gateway.get("/v1/recommendations/ada", **{"freshet-deadline-ms": wrong})
        assert answer.status_code == 400


def test_without_kafka_reads_work_and_writes_fail(gateway: RunningGateway) -> None:
    event = {"event_id": "e", "type": "click", "ts": 1_750_000_000_000, "user_id": "ada", "item_id": "tea"}
    answer = gateway.ask("POST", "/v1/events", "producer", json=event)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_withdrawal_is_fenced_while_kafka_is_down(gateway: RunningGateway) -> None:
    assert gateway.get("/v1/recommendations/ada").json()["reason"] == "personalised"
    change = {"user_id": "ada", "level": "none", "ts": time.time_ns() // 1_000_000}
    assert gateway.ask("POST", "/v1/consent", "privacy", json=change).status_code == 503
    assert gateway.get("/v1/recommendations/ada").json()["reason"] == "popular"


# -- refusals


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{", "malformed"),
        ("", "empty_value"),
        ('{"event_id": "e"}', "missing_field"),
        ('{"event_id": "e", "type": "hush", "ts": 1, "user_id": "hush"}', "unknown_type"),
        ('{"event_id": "e", "type": "click", "ts": 1750000000000, "user_id": "hush"}', "missing_item"),
        ('{"event_id": "e", "type": "search", "ts": 1750000000000, "user_id": "hush", "x": 1}', "unknown_field"),
    ],
)
def test_invalid_interaction_is_refused_with_reason_without_echo(
    gateway: RunningGateway, body: str, reason: str
) -> None:
    answer = gateway.ask("POST", "/v1/events", "producer", content=body)
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert "hush" not in answer.text + gateway.logged()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/recommendation", 404),
        ("GET", "/v1/recommendations", 405),
        ("GET", "/v1/recommendations/", 400),
        ("POST", "/v1/recommendations/ada", 405),
        ("PUT", "/v1/events", 405),
        ("GET", "/docs", 404),
        ("DELETE", "/v1/users/", 404),
        ("TRACE", "/v1/popular", 405),
        ("GET", "/v1/recommendations%2Fada", 404),
        ("GET", "/v1/%72ecommendations/ada", 404),
        ("GET", "/v1/recommendations/%zz", 400),
        ("GET", "/v1/recommendations/ada%00", 400),
        ("DELETE", "/v1/users/ada%zz", 400),
        ("DELETE", "/v1/users/ada/", 404),
        ("DELETE", "/v1/users/ada/data", 405),
        ("DELETE", "/v1/users/%FF", 400),
        ("GET", "/v1/users/%FF/data?purpose=x", 400),
        ("GET", "/v1/users/ada/bob/data?purpose=x", 404),
    ],
)
def test_not_found_uses_problem_details(gateway: RunningGateway, method: str, path: str, status: int) -> None:
    answer = gateway.ask(method, path, "admin")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users/%0A%0A",
        "/v1/users/a%0A",
        "/v1/users/%00/data?purpose=x",
        "/v1/users/a%0Ab/data?purpose=x",
        "/v1/users/a%E2%80%AEb",
        "/v1/users/a%E2%80%A8b",
        "/v1/users/%EF%BB%BFa/data?purpose=x",
    ],
)
def test_user_id_with_control_characters_is_refused(gateway: RunningGateway, path: str) -> None:
    answer = gateway.ask("GET" if "data" in path else "DELETE", path, "privacy")
    assert answer.status_code == 400 and "control character" in answer.json()["detail"]


def test_oversized_or_invalid_json_body_is_refused(gateway: RunningGateway) -> None:
    answer = gateway.ask("POST", "/v1/events", "producer", content=b" " * 2_000_000)
    assert answer.status_code == 413
    answer = gateway.ask("POST", "/v1/events", "producer", content="a=1", headers={"content-type": "text/plain"})
    assert answer.status_code == 415


def a_click(**more: Any) -> bytes:
    event = {"event_id": "e", "type": "click", "ts": 1_750_000_000_000, "user_id": "ada", "item_id": "tea", **more}
    return json.dumps(event).encode()


@pytest.mark.parametrize("path", ["/v1/events", "/v1/consent"])
@pytest.mark.parametrize(
    ("body", "coding", "status"),
    [
        (gzip.compress(a_click()), "gzip", 503),
        (gzip.compress(a_click()), "GZip", 503),
        (a_click(), "identity", 503),
        (a_click(), "gzip", 400),
        (b"", "gzip", 400),
        (gzip.compress(a_click())[:-1], "gzip", 400),
        (gzip.compress(a_click()) + b"x", "gzip", 400),
        (gzip.compress(b" " * 1_048_577), "gzip", 413),
        (gzip.compress(gzip.compress(a_click())), "gzip, gzip", 415),
        (a_click(), "br", 415),
        (a_click(), "", 415),
    ],
    ids=["gzip", "capitals", "identity", "plain", "empty", "cut", "more", "bomb", "twice", "brotli", "none"],
)
def test_content_encoding_of_bodies_is_honoured(
    gateway: RunningGateway, path: str, body: bytes, coding: str, status: int
) -> None:
    answer = gateway.ask("POST", path, "producer", content=body, headers={"content-encoding": coding})
    # A user named in an unreadable consent change has withdrawn; that, and a click, must go to Kafka.
    assert answer.status_code == status
    assert ("accept-encoding" in answer.headers) == (status == 415)


@pytest.mark.parametrize("path", ["/v1/popular/", "//v1/popular", "/v1//popular", "/livez/", "//livez"])
def test_paths_are_compared_as_sent(gateway: RunningGateway, path: str) -> None:
    assert b" 404 " in raw_get(gateway, path)
    assert "slash" in gateway.get("/openapi.json").json()["info"]["description"]


def test_unauthorised_request_is_rejected_before_its_body_is_read(gateway: RunningGateway) -> None:
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {gateway.keys['frontend']}\r\nContent-Length: 900000\r\n"
    assert b" 403 " in raw(gateway, f"{head}\r\n".encode())


def raw_get(gateway: RunningGateway, target: str | bytes) -> bytes:
    target = target.encode() if isinstance(target, str) else target
    key = gateway.keys["frontend"].encode()
    return raw(gateway, b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: %b\r\n\r\n" % (target, key))


def raw(gateway: RunningGateway, sent: bytes) -> bytes:
    """The response to raw bytes, up to a head and the body that it announces."""
    return conversation(gateway, sent, enough=is_whole)


def is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = [line[16:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
    return bool(length) and len(body) >= int(length[0])


def conversation(
    gateway: RunningGateway,
    *pieces: bytes,
    says_all: bool = False,
    enough: Callable[[bytes], bool] = lambda received: False,
) -> bytes:
    """The response to pieces sent one by one, until it is complete or the gateway closes.

    With `says_all`, the client then closes its own side.
    """
    with socket.create_connection((LOOPBACK, gateway.port), timeout=30) as connection:
        received = b""
        with contextlib.suppress(ConnectionError):  # refused before all was sent
            for place, piece in enumerate(pieces):
                time.sleep(0.05 * (place > 0))
                connection.sendall(piece)
            if says_all:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while not enough(received) and (chunk := connection.recv(65_536)):
                received += chunk
        return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"x" * (PATH_BYTES_MAX + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Much: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n", b"431"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10_000, b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET /livez HTTP/9.9\r\n\r\n", b"400"),
        (b"POST /v1/events HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /v1/recommendations/ada HTTP/1.1\r\nHost: a b@/\r\n\r\n", b"400"),
        (b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", b"505"),
        (b"GET /livez\r\n\r\n", b"400"),
    ],
    ids=[
        "path",
        "header",
        "endless head",
        "TLS",
        "version",
        "smuggling",
        "length",
        "no host",
        "two hosts",
        "no such host",
        "version 2",
        "no version",
    ],
)
def test_malformed_or_oversized_requests_do_not_affect_other_clients(
    gateway: RunningGateway, sent: bytes, status: bytes
) -> None:
    answer = raw(gateway, sent)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert gateway.get("/v1/recommendations/ada").status_code == 200


def test_pipelined_requests_are_answered_in_order(gateway: RunningGateway, store: Any) -> None:
    users = ["ada", "bob", "cyd"]
    for user in users:
        give_list(store, gateway.rings["default"], user, [user])
    head = f"Host: x\r\nX-API-Key: {gateway.keys['frontend']}\r\n"
    sent = "".join(
        f"GET /v1/recommendations/{user} HTTP/1.1\r\n{head}\r\nGET /v1/popular HTTP/1.1\r\n{head}\r\n" for user in users
    )
    sent += f"GET /v1/recommendations/last HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
    for pieces in (1, 7):
        size = -(-len(sent) // pieces)
        cut = [sent[begin : begin + size].encode() for begin in range(0, len(sent), size)]
        received = conversation(gateway, *cut)
        bodies = received.split(b'{"v":')[1:]
        assert [user.encode() in body for user, body in zip(users, bodies[::2], strict=False)] == [True] * 3
        assert [b"socks" in body for body in bodies[1::2]] == [True] * 3 and b"socks" in bodies[6]
        assert received.count(b"HTTP/1.1 200") == 7


def test_half_closed_connection_is_answered(gateway: RunningGateway) -> None:
    head = f"Host: x\r\nX-API-Key: {gateway.keys['frontend']}\r\n\r\n"
    targets = ["/v1/recommendations/ada", "/v1/popular"]
    for asked in (targets[:1], targets[1:], targets, targets[::-1]):
        sent = "".join(f"GET {target} HTTP/1.1\r\n{head}" for target in asked).encode()
        received = conversation(gateway, sent, says_all=True)
        assert received.count(b"HTTP/1.1 200") == len(asked)
    for begun in (b"", b"GET /livez HT", b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"):
        assert conversation(gateway, begun, says_all=True) == b""


def test_client_disconnect_does_not_affect_others(gateway: RunningGateway) -> None:
    for _ in range(50):
        with socket.create_connection((LOOPBACK, gateway.port)) as connection:
            key = gateway.keys["frontend"]
            connection.sendall(f"GET /v1/recommendations/ada HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode())
    assert gateway.get("/v1/recommendations/ada").json()["reason"] == "personalised"
    assert '"log.level": "ERROR"' not in gateway.logged()


@pytest.mark.parametrize("more", ["Connection: close\r\n", "Content-Length: 2\r\n", "Expect: 100-continue\r\n", ""])
def test_fast_lane_and_asgi_responses_are_equal(gateway: RunningGateway, more: str) -> None:
    head = f"GET /v1/recommendations/ada HTTP/1.1\r\nHost: x\r\nX-API-Key: {gateway.keys['frontend']}\r\n"
    answer = raw(gateway, f"{head}{more}\r\n{'{}' if 'Length' in more else ''}".encode())
    whole = gateway.get("/v1/recommendations/ada")
    assert answer.endswith(whole.content)
    for name in ("etag", "cache-control", "vary", "ratelimit-policy", "content-type"):
        assert f"{name}: {whole.headers[name]}".encode() in answer


def header_names(answer: bytes) -> set[bytes]:
    return {line.partition(b":")[0] for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}


@pytest.mark.parametrize("path", ["/v1/recommendations/ada", "/v1/popular"])
def test_not_modified_has_equal_headers_on_both_paths_and_keeps_the_pipeline(
    gateway: RunningGateway, path: str
) -> None:
    whole, key = gateway.get(path), f"Host: x\r\nX-API-Key: {gateway.keys['frontend']}\r\n"
    known = f"If-None-Match: {whole.headers['etag']}\r\n"
    found = []
    for more in ("", "Content-Length: 0\r\n", "Expect: 100-continue\r\n"):
        asked = f"GET {path} HTTP/1.1\r\n{key}{known}{more}\r\n"
        last = f"GET {path} HTTP/1.1\r\n{key}Connection: close\r\n\r\n"
        received = conversation(gateway, (asked * 3 + f"HEAD {asked[4:]}" + last).encode())
        answers = received.split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"304"] * 4 + [b"200"]
        assert not any(answer.partition(b"\r\n\r\n")[2] for answer in answers[:4]), "no body"
        assert b"content-length" not in header_names(answers[0])
        found += [header_names(answer) for answer in answers[:4]]
    assert all(names == found[0] for names in found)
    of_the_whole = {name.encode() for name in whole.headers} & {b"date", b"etag", b"cache-control", b"vary"}
    assert of_the_whole <= found[0] and {b"date", b"etag", b"cache-control"} <= of_the_whole, "RFC 9110, section 15.4.5"
    assert "Exception in ASGI" not in gateway.logged() and '"log.level": "ERROR"' not in gateway.logged()


def test_sampled_trace_is_logged(gateway: RunningGateway) -> None:
    ids = {flag: f"{int(flag)}" * 32 for flag in ("01", "02")}
    for path in ("/v1/recommendations/ada", "/v1/popular"):
        for flag, trace in ids.items():
            gateway.get(path, traceparent=f"00-{trace}-{'b' * 16}-{flag}")
    lines = [line for line in gateway.logged().splitlines() if ids["01"] in line]
    assert ['"freshet.route": "recommendations"' in line for line in lines] == [True, False]
    assert ids["02"] not in gateway.logged()


def test_logs_contain_no_secrets_or_user_ids(gateway: RunningGateway) -> None:
    gateway.get("/v1/recommendations/ada")
    gateway.ask("DELETE", "/v1/users/ada", "privacy")
    logged = gateway.logged()
    assert not [key for key in gateway.keys.values() if key in logged]
    assert "ada" not in logged and Pseudonymiser(gateway.rings["default"]).user("ada") not in logged


TOLD = "freshet.route", "http.response.status_code", "freshet.role"


def test_metrics_name_the_role_that_opened_the_route(gateway: RunningGateway) -> None:
    bearer = f"Bearer {a_token(roles=['frontend', 'producer', 'operator'])}"
    before = len(gateway.logged().splitlines())
    for path in ("/v1/model", "/v1/recommendations/ada", "/v1/users/ada/data"):
        gateway.get(path, None, authorization=bearer)
    wanted = [("model", 200, "operator"), ("access", 403, "frontend")]

    def told() -> list[tuple[Any, ...]]:
        lines = [json.loads(line) for line in gateway.logged().splitlines()[before:]]
        return [tuple(line[name] for name in TOLD) for line in lines if TOLD[1] in line]

    until(lambda: [line for line in told() if line in wanted] == wanted, "both lines of the log", 30)


def test_rejections_before_routing_are_counted(gateway: RunningGateway) -> None:
    raw(gateway, b"garbage\r\n\r\n")
    raw(gateway, b"GET /" + b"x" * (PATH_BYTES_MAX + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    told = gateway.get("/metrics", "operator").text
    for status in (400, 414):
        assert f'freshet_gateway_answers_total{{route="unknown",status="{status}"}}' in told


def test_metrics_count_reads_by_route_reason_and_role_without_users(gateway: RunningGateway) -> None:
    gateway.get("/v1/recommendations/ada")
    told = gateway.get("/metrics", "operator").text
    assert (
        'freshet_gateway_request_seconds_count{reason="personalised",role="frontend",route="recommendations"}' in told
    )
    assert "ada" not in told


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (b"GET /v1/recommendations/" + b"x" * (PATH_BYTES_MAX + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
        (b"garbage\r\n\r\n", b"400"),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
    ids=["path", "garbage", "chunk"],
)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_rejection_follows_earlier_pipelined_responses(
    gateway: RunningGateway, store: Any, last: bytes, status: bytes, in_pieces: bool
) -> None:
    give_list(store, gateway.rings["default"], "ada", ["tea"])
    key = f"Host: x\r\nX-API-Key: {gateway.keys['frontend']}\r\n\r\n".encode()
    before = [b"GET /v1/recommendations/ada HTTP/1.1\r\n" + key, b"GET /v1/popular HTTP/1.1\r\n" + key]
    behind = b"GET /v1/recommendations/ada HTTP/1.1\r\n" + key
    pieces = [*before, last, behind] if in_pieces else [b"".join([*before, last, behind])]
    answers = conversation(gateway, *pieces).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", status]
    assert b'"tea"' in answers[0] and '"log.level": "ERROR"' not in gateway.logged()


def test_head_limit_counts_head_bytes_only(gateway: RunningGateway) -> None:
    key = f"Host: x\r\nX-API-Key: {gateway.keys['frontend']}\r\n".encode()
    body = b"[" + b" " * 3 * HEAD_BYTES_MAX + b"]"
    posted = b"POST /v1/events HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (key, len(body), body)
    next_one = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = conversation(gateway, posted + next_one[:10], next_one[10:]).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"403", b"200"]
    many = (b"GET /v1/recommendations/ada HTTP/1.1\r\n" + key + b"X: " + b"y" * 200 + b"\r\n\r\n") * 400 + next_one
    answers = conversation(gateway, many).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 401


@pytest.mark.parametrize(
    ("role", "length", "status"), [("producer", 10**11, b"413"), ("nobody", 10**11, b"401"), ("frontend", 10, b"403")]
)
def test_rest_of_rejected_body_is_not_read(gateway: RunningGateway, role: str, length: int, status: bytes) -> None:
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {gateway.keys.get(role, role)}\r\n"
    with socket.create_connection((LOOPBACK, gateway.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        if length > 10:
            connection.sendall(b" " * 2_000_000)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65_536)
        assert answer[9:12] == status and b"\r\nconnection: close\r\n" in answer
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(b" " * 65_536)
                time.sleep(0.01)
