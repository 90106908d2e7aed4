"""Caches in front of the gateway keep and serve stale popular lists, never a user's list; purges are sent."""

import http.server
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.waiting import until
from deploy.local.ports import LOOPBACK, free_port, is_listening
from schemas.consents import Level
from schemas.pseudonyms import Pseudonymiser
from schemas.store import consent_value, user_keys
from serving.gateway.caching import surrogate_key
from tests.support.gateway import RunningGateway, give_list, give_popular, running_gateway
from tests.support.redis_server import RealRedis, running_redis

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIG = """
{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=lists:1m;
  server {{
    listen {host}:{port};
    location / {{
      proxy_pass http://{host}:{behind};
      proxy_cache lists; proxy_cache_key $request_uri; proxy_cache_background_update on;
      proxy_set_header X-API-Key {key};
      add_header X-Cache $upstream_cache_status always;
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[RunningGateway], httpx.Client]]:
    if NGINX is None:
        pytest.skip("nginx is not installed: a cache in front of the gateway was not tested")
    ends: list[Callable[[], Any]] = []

    def in_front_of(gateway: RunningGateway) -> httpx.Client:
        port, folder = free_port(), tmp_path / "nginx"
        folder.mkdir()
        # If started as root, its workers run as another user and could not write below this folder.
        settings = {
            "user": "user root;" if os.geteuid() == 0 else "",
            "folder": folder,
            "host": LOOPBACK,
            "port": port,
            "behind": gateway.port,
        }
        (folder / "nginx.conf").write_text(CONFIG.format(**settings, key=gateway.keys["frontend"]))
        # The folder precedes the configuration, or nginx opens its log where it may not write.
        process = subprocess.Popen([NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", "nginx.conf"])
        client = httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=30)
        ends.extend([client.close, process.terminate, process.wait])
        until(lambda: is_listening(port), "nginx", 20)
        return client

    yield in_front_of
    for end in ends:
        end()


@pytest.mark.promise("caches")
def test_http_cache_in_front_works(server: RealRedis, tmp_path: Path, nginx: Any) -> None:
    with running_gateway(tmp_path / "gateway", server.url) as gateway:
        give_list(server.client, gateway.rings["default"], "ada", ["tea"])
        give_list(server.client, gateway.rings["default"], "bob", ["cup"])
        give_popular(server.client, ["socks"])
        front = nginx(gateway)
        assert front.get("/v1/popular").headers["x-cache"] == "MISS"
        until(lambda: front.get("/v1/popular").headers["x-cache"] == "HIT", "an answer from the cache", 20)
        for user, item in (("ada", "tea"), ("bob", "cup"), ("ada", "tea")):
            answer = front.get(f"/v1/recommendations/{user}")
            assert (answer.headers["x-cache"], answer.json()["items"][0]["id"]) == ("MISS", item)
        known = {"if-none-match": front.get("/v1/recommendations/ada").headers["etag"]}
        consent_key = user_keys("default:", Pseudonymiser(gateway.rings["default"]).user("ada"))[1]
        server.client.set(consent_key, consent_value(Level.NONE, 0, 2, 0, 2))
        assert front.get("/v1/recommendations/ada", headers=known).json()["reason"] == "popular"
        gateway.process.kill()
        gateway.process.wait()
        until(lambda: front.get("/v1/popular").headers["x-cache"] in ("STALE", "UPDATING"), "a stale answer", 20)
        assert front.get("/v1/popular").status_code == 200
        assert front.get("/v1/recommendations/bob").status_code == 502, "nobody's own list is kept"


@pytest.mark.parametrize("segment", ["surface:ä", "a b", "a\r\nb: c", "\u3000"])
def test_any_segment_name_becomes_a_valid_surrogate_key(segment: str) -> None:
    key = surrogate_key("default", segment)
    assert key.isascii() and key.isprintable() and " " not in key


def test_purge_names_lists_whose_items_changed(server: RealRedis, tmp_path: Path) -> None:
    purged: list[str] = []

    class Purged(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            purged.append(self.headers["Surrogate-Key"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    cache = http.server.HTTPServer((LOOPBACK, 0), Purged)
    serving = threading.Thread(target=cache.serve_forever)
    serving.start()
    try:
        more = f'[cache]\npurge_url = "http://{LOOPBACK}:{cache.server_port}/purge"\n'
        with running_gateway(tmp_path / "gateway", server.url, more=more) as gateway:
            give_popular(server.client, ["socks"])
            give_popular(server.client, ["umbrella"], "country:GB")
            gateway.get("/v1/popular?segment=country:GB")
            time.sleep(2.5)  # the same items again and again are no news
            assert purged == []
            give_popular(server.client, ["scarf"], "country:GB")
            until(lambda: purged == ["popular/default/country:GB"], "the purge", 20, explain=lambda: str(purged))
    finally:
        cache.shutdown()
        serving.join()
        cache.server_close()
