"""Validates the head of a request: its size, version, Host and transfer coding."""

import re
from typing import Final

from serving.gateway.problems import Problem

HEAD_BYTES_MAX: Final = 16_384
PATH_BYTES_MAX: Final = 4_096
HEADERS_MAX: Final = 100
HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
"""The syntax of the Host header (RFC 9110, section 7.2)."""


def too_large() -> Problem:
    """The problem for a head that exceeds the limits."""
    detail = f"the head of a request has at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers"
    return Problem(431, "headers-too-large", detail)


def size_complaint(url: bytes, headers: list[tuple[bytes, bytes]]) -> Problem | None:
    """The problem with the size of a head, if any; names in `headers` are lower case."""
    if len(url) > PATH_BYTES_MAX:
        return Problem(414, "path-too-long", f"path and query have at most {PATH_BYTES_MAX} bytes")
    if sum(len(name) + len(value) + 4 for name, value in headers) > HEAD_BYTES_MAX or len(headers) > HEADERS_MAX:
        return too_large()
    return None


def form_complaint(version: str, headers: list[tuple[bytes, bytes]]) -> Problem | None:
    """The problem with version, Host or transfer coding of a head, if any; the parser checks the rest."""
    if version not in ("1.0", "1.1"):
        status = 505 if version > "1.1" else 400
        return Problem(status, "http-version", "requests are of HTTP/1.1 or HTTP/1.0")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1") or (hosts and not HOST.fullmatch(hosts[0])):
        return Problem(400, "host", "a request of HTTP/1.1 has one Host header: a name, with or without a port")
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        return Problem(501, "transfer-coding", "the one transfer coding that is read here is chunked, of HTTP/1.1")
    return None
