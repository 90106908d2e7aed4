"""The log of the gateway, and the fields of its lines: routes, roles and keyed hashes of request ids, and no user."""

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from adapters.log_output import log_to_stderr
from schemas.log_lines import HTTP_REQUEST, LogField, LogFormat
from schemas.traces import sampled_trace
from serving.gateway.tenants import Tenant

SERVICE: Final = "freshet-gateway"
REQUEST_ID: Final = b"x-request-id"
TRACE: Final = b"traceparent"
REQUEST_ID_BYTES_MAX: Final = 128
"""Longer ids are not logged and not passed on to the job."""


def log_gateway(format: LogFormat | Literal["auto"]) -> None:
    """Make every logger of this process write to standard error."""
    chosen: LogFormat = ("text" if sys.stderr.isatty() else "json") if format == "auto" else format
    log_to_stderr(chosen, {"service.name": SERVICE}, level=logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # the caller reports failures


def request_id_of(lines: Mapping[bytes, bytes]) -> bytes | None:
    """The `X-Request-Id` among headers, raw: never log it."""
    found = lines.get(REQUEST_ID)
    return found if found and len(found) <= REQUEST_ID_BYTES_MAX else None


def record_headers(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, bytes]]:
    """The headers of Kafka records sent for a request: its id, which the job hashes, and its trace if it is sampled."""
    lines = dict(headers)
    request, trace = request_id_of(lines), lines.get(TRACE)
    found = [] if request is None else [(REQUEST_ID.decode(), request)]
    return found if trace is None or sampled_trace(trace) is None else [*found, (TRACE.decode(), trace)]


def request_fields(tenant: Tenant, lines: Mapping[bytes, bytes]) -> dict[str, LogField]:
    """What a log line says of the request with the headers `lines`: its tenant, and its id, under the tenant's key.

    A request whose credentials name no tenant has no key, and so no id in the log.
    """
    request = request_id_of(lines)
    return {"freshet.tenant": tenant.name, HTTP_REQUEST: None if request is None else tenant.request_name(request)}


def answer_fields(route: str, role: str, status: int, seconds: float) -> dict[str, LogField]:
    """What a log line says of an answer that took `seconds`."""
    return {
        "freshet.route": route,
        "freshet.role": role,
        "http.response.status_code": status,
        "event.duration": round(1e9 * seconds),
    }
