"""Assembles the gateway: the hot lane in front, then the gate, then the framework with the other routes.

The lane answers the hot route itself. The framework's route only documents it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Final

import prometheus_client
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, multiprocess
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from adapters.tracing.span_sender import SpanSender, span_sender
from schemas.errors import SettingsError
from serving.gateway.admission import Admission, Limits
from serving.gateway.bounds import Ledger
from serving.gateway.caching import Purger
from serving.gateway.collecting import Collecting
from serving.gateway.gate import Gate
from serving.gateway.gateway_settings import GatewaySettings, load_gateway_settings
from serving.gateway.lane import Lane
from serving.gateway.logs import SERVICE, log_gateway
from serving.gateway.metrics import Meter
from serving.gateway.operations import DocumentedApi
from serving.gateway.parts import GatewayParts
from serving.gateway.problems import Problem, fault
from serving.gateway.routes import router
from serving.gateway.security import Authenticator
from serving.gateway.tenants import Tenant, make_tenant
from serving.gateway.tracing import PostTracing

SETTINGS_VARIABLE: Final = "FRESHET_GATEWAY_SETTINGS"
MULTIPROCESS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
REFRESH_EVERY_S: Final = 2.0
NOTE_EVERY_S: Final = 1.0
logger = logging.getLogger("freshet.gateway")


class Gateway:
    """The ASGI application. `api` is its FastAPI part.

    For the server, `ledger` limits buffered bytes and connections, `refused` counts requests that the server itself
    refuses, and `handle` answers requests of the fast lane.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._authenticator = Authenticator(settings.auth)
        self._tenants = {name: make_tenant(name, settings) for name in settings.tenants}
        registry, admission, limits = CollectorRegistry(), Admission(settings.admission), Limits(settings.admission)
        self._meter = Meter(registry)
        parts = GatewayParts(self._authenticator, self._tenants, admission, limits, self._meter)
        self.api = documented_api(self._lifespan)
        state, server = self.api.state, settings.server
        state.cache, state.tenants, state.draining = settings.cache, self._tenants, False
        state.admission = admission
        self._spans = span_sender(settings.traces, SERVICE)
        state.tracing = PostTracing(self._spans, settings.traces.share)
        state.collecting = self._collecting = Collecting(settings.access)
        state.meter, state.body_bytes_max = self._meter, server.body_bytes_max
        # One thread per admitted request, so that none waits for a thread, and no withdrawal waits behind events.
        state.threads = {
            kind: ThreadPoolExecutor(most, f"freshet-{kind}") for kind, most in admission.writes_max.items()
        }
        state.exposition = lambda: prometheus_client.generate_latest(_scraped(registry))
        gate = Gate(self.api, parts, body_bytes_max=server.body_bytes_max, deadline_s=server.deadline_ms / 1000)
        self._lane = Lane(gate, parts, slow_s=server.slow_ms / 1000)
        self.handle = self._lane.handle
        self.refused = self._meter.refused
        self.ledger = Ledger(server.connections_max, server.held_bytes_max)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await self._lane(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, api: FastAPI) -> AsyncIterator[None]:
        self._drain_first()
        tenants = self._tenants.values()
        await asyncio.gather(*(tenant.reader.open() for tenant in tenants))
        purging = asyncio.create_task(Purger(self._settings.cache, self._tenants).run())
        refreshing = asyncio.create_task(_refresh(self._authenticator))
        noting = asyncio.create_task(_note_sources(self._tenants, self._meter, self._spans))
        yield
        for task in (purging, refreshing, noting):
            task.cancel()
        await asyncio.gather(purging, refreshing, noting, return_exceptions=True)
        await asyncio.gather(*(tenant.reader.close() for tenant in tenants), asyncio.to_thread(self._collecting.close))
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)
        # Each may wait for an unavailable Kafka: close all at once, so that shutdown takes no longer than the slowest.
        await asyncio.gather(*(asyncio.to_thread(close) for tenant in tenants for close in tenant.closing))

    def _drain_first(self) -> None:
        """On SIGTERM, fail /readyz for a while so that no new requests arrive; then shut down as uvicorn does."""
        drain_s, end = self._settings.server.drain_s, signal.getsignal(signal.SIGTERM)
        if not drain_s or not callable(end) or threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()

        def drain(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGTERM, end)  # a second signal ends at once
            self.api.state.draining = True
            loop.call_soon_threadsafe(loop.call_later, drain_s, end, number, frame)

        signal.signal(signal.SIGTERM, drain)


def documented_api(lifespan: Any = None) -> DocumentedApi:
    """All routes, and their OpenAPI document."""
    api = DocumentedApi(router, lifespan)
    api.add_exception_handler(Problem, _as_problem)  # type: ignore[arg-type]
    api.add_exception_handler(HTTPException, _as_other_problem)  # type: ignore[arg-type]
    api.add_exception_handler(Exception, _as_fault)
    return api


async def _refresh(authenticator: Authenticator) -> None:
    """Reload the files in asyncio's thread pool, which nothing else uses: a key's removal must not wait for Kafka."""
    while True:
        await asyncio.sleep(REFRESH_EVERY_S)
        try:
            if await asyncio.to_thread(authenticator.refresh):
                logger.info("API keys and key set were reloaded")
        except SettingsError as error:
            logger.error("%s: the previous ones stay in use", error)


async def _note_sources(tenants: Mapping[str, Tenant], meter: Meter, spans: SpanSender | None) -> None:
    """Keep the metrics of Redis, of the catalogue and of `spans` up to date."""
    while True:
        for name, tenant in tenants.items():
            meter.redis(name, tenant.reader.state(), len(tenant.reader.complaints()))
            meter.catalogue(name, tenant.catalogue.unread)
        if spans is not None:
            meter.spans_dropped(spans.take_dropped())
        await asyncio.sleep(NOTE_EVERY_S)


def _scraped(registry: CollectorRegistry) -> CollectorRegistry:
    """The registry of this process, or of all workers together."""
    if MULTIPROCESS_VARIABLE not in os.environ:
        return registry
    of_all = CollectorRegistry()
    multiprocess.MultiProcessCollector(of_all)  # type: ignore[no-untyped-call]
    return of_all


def _as_problem(request: Request, problem: Problem) -> Response:
    answer = problem.answer()
    headers = {name.decode(): value.decode() for name, value in answer.headers if name != b"content-length"}
    return Response(answer.body, answer.status, headers)


def _as_other_problem(request: Request, error: HTTPException) -> Response:
    return _as_problem(request, Problem(error.status_code, "not-found", "not found: see /openapi.json"))


def _as_fault(request: Request, error: Exception) -> Response:
    """The framework raises the error again after this, and the gate logs it."""
    return _as_problem(request, fault())


def from_environment() -> Gateway:
    """Create the gateway from the settings file in the environment; each worker calls this."""
    settings = load_gateway_settings(Path(os.environ[SETTINGS_VARIABLE]))
    log_gateway(settings.logs.format)
    return Gateway(settings)
