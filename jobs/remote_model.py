"""Opens the model on an inference server that the settings name, and tries it before the job is submitted."""

from pathlib import Path
from typing import Final

import numpy as np

from adapters.scoring.arrays import InferenceClient
from adapters.scoring.opening import open_client
from adapters.secrets.secret_files import read_secret_variable
from jobs.remote_settings import RemoteModelSettings
from models.adopt import items_in
from models.manifest import RECENT_ITEMS_MAX
from models.remote_scorer import Names, RemoteScorer
from models.trial import find_fault
from schemas.errors import ModelError, ModelUnavailable, SettingsError
from udfs.fallback_model import FallbackModel
from udfs.frozen_model import FrozenModel
from udfs.profile import ProfileBounds
from udfs.ranking import ListModel

TRIAL_MS: Final = 5_000
"""A trial may take longer than a call of the job: a server may load the model at the first request."""


def with_remote(settings: RemoteModelSettings, local: ListModel, bounds: ProfileBounds) -> FallbackModel:
    """The model on the server, in front of `local`. The server need not answer yet."""
    scorer = remote_scorer(settings, settings.deadline_ms)
    return FallbackModel(FrozenModel(scorer, settings.name(), bounds, settings.pause_ms, stands_in=True), scorer, local)


def remote_scorer(
    settings: RemoteModelSettings, deadline_ms: int, client: InferenceClient | None = None
) -> RemoteScorer:
    """The model on the server; raises :class:`SettingsError` or :class:`ModelError` for what cannot be used here."""
    names = Names(
        settings.items_input, settings.items_type, settings.weights_input, settings.scores_output, settings.ids_output
    )
    items = items_in(Path(settings.items or ""))
    return RemoteScorer(client or _client(settings), items, names, settings.top_k, deadline_ms)


def _client(settings: RemoteModelSettings) -> InferenceClient:
    token = read_secret_variable(settings.token_variable)
    try:
        return open_client(settings.url or "", settings.protocol, settings.model or "", settings.version, token)
    except SettingsError as error:
        raise SettingsError(f"model.remote.url: {error}") from None


def check_remote(settings: RemoteModelSettings) -> str:
    """Ask the server for the model's metadata, and try it on histories like those of a shop.

    Returns what to show; raises :class:`ModelError` with the change to make.
    """
    client = _client(settings)
    try:
        said = client.describe(TRIAL_MS / 1000)
    except ModelUnavailable as error:
        raise ModelError(f"{settings.url}: {error}: see that model {settings.model} is loaded there") from None
    scorer = remote_scorer(settings, TRIAL_MS, client)
    try:
        width = scorer.score(np.ones((1, RECENT_ITEMS_MAX), np.int32))[0].shape[1]  # a server may load it only now
        waited_ms, calls = scorer.waited_ms, scorer.calls
        fault = find_fault(scorer.score, len(scorer.items) - 1, RECENT_ITEMS_MAX, width)
    except ModelUnavailable as error:
        raise ModelError(f"{settings.url}: a trial failed: {error}; the server says: {said}") from None
    mean_ms = (scorer.waited_ms - waited_ms) / max(1, scorer.calls - calls)
    if fault is not None:
        raise ModelError(f"{settings.url}: {fault}")
    if mean_ms > settings.deadline_ms:
        raise ModelError(
            f"{settings.url}: a trial took {mean_ms:.0f} ms, more than model.remote.deadline_ms: raise that, or "
            "have the server return ranked rows, which are fewer than all scores"
        )
    return f"{settings.name()} answers in {mean_ms:.0f} ms; {said}"
