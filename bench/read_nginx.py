"""nginx with a file of the size of a list: the cost of HTTP itself. Used if nginx is installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from adapters.waiting import until
from bench.read_testbed import ReadTestbed
from deploy.local.ports import LOOPBACK, free_port, is_listening
from deploy.local.processes import ProcessTable

# Paths are relative to the prefix, `-p`, because nginx expands `$` in its configuration.
CONFIG = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; default_type application/json;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{ listen {host}:{port}; root html; }}
}}
"""


class Peer(NamedTuple):
    """A server for comparison."""

    pid: int
    port: int
    requests: list[bytes]


@contextmanager
def running(testbed: ReadTestbed) -> Iterator[Peer | str]:
    """nginx, or the reason why it does not run."""
    executable = shutil.which("nginx")
    if executable is None:
        yield "nginx is not installed"
        return
    folder, port = testbed.directory / "nginx", free_port()
    (folder / "html").mkdir(parents=True)
    (folder / "html" / "list").write_bytes(testbed.listed)
    (folder / "nginx.conf").write_text(CONFIG.format(host=LOOPBACK, port=port))
    table = ProcessTable(testbed.directory)
    record = table.start("nginx", [executable, "-p", str(folder), "-c", str(folder / "nginx.conf")], {})
    try:
        until(lambda: is_listening(port), "nginx", 20)
        request = f"GET /list HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nAccept: application/json\r\n\r\n".encode()
        yield Peer(record.pid, port, [request])
    finally:
        table.end([record], 2)
