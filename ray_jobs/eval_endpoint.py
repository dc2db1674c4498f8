"""Which model is evaluated, and the endpoint that answers for it: one of our own, or one that runs already."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from data import storage
from data.audio import wav_bytes
from data.errors import InputError
from eval.asking import Endpoint
from ray_jobs.job import Run
from ray_jobs.recipe import Recipe, speech_rate_hz
from serve.client import Client, EndpointError

FINAL, BEFORE_LORA = "final", "before_lora"


@dataclass(frozen=True)
class EvaluatedModel:
    """`id` names the weights; `served` maps the names that requests use to folders, or to an endpoint's own ids."""

    id: str
    served: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The names that requests may use."""
        return tuple(self.served)


def evaluated_model(run: Run) -> EvaluatedModel:
    """The model given by `model=` or `endpoint=`, else the recipe's own with, beside it, the one before LoRA."""
    recipe = run.recipe
    if recipe.endpoint:
        ids = model_ids(recipe.endpoint)
        first = FINAL if FINAL in ids else ids[0]
        served = {FINAL: first} | ({BEFORE_LORA: BEFORE_LORA} if BEFORE_LORA in ids else {})
        return EvaluatedModel(first, served)
    if recipe.model:
        return EvaluatedModel(storage.hash_folder(recipe.model), {FINAL: recipe.model})
    folder = storage.join(run.inputs["train"], "model")
    served = {FINAL: folder}
    before = _phase_before_lora(recipe)
    earlier = storage.join(run.inputs["train"], "phases", before or "")
    if before and storage.exists(storage.join(earlier, "config.json")):
        served[BEFORE_LORA] = earlier
    return EvaluatedModel(storage.hash_folder(folder), served)


def _phase_before_lora(recipe: Recipe) -> str | None:
    phases = recipe.train.phases
    adapted = [number for number, phase in enumerate(phases) if phase.lora is not None]
    return phases[adapted[0] - 1].name if adapted and adapted[0] > 0 else None


@cache
def endpoint_identity(url: str) -> str:
    """What a running endpoint says it serves; a name never used before where it says nothing.

    Asked once per process, so that a job does not change its id while it runs. Raises InputError where nothing
    answers at `url`.
    """
    ids = _listed(url)
    return "endpoint:" + (",".join(sorted(ids)) if ids else f"unnamed-{uuid.uuid4().hex}")


def model_ids(url: str) -> list[str]:
    """The ids that a running endpoint lists. Raises InputError where there is none to ask by."""
    ids = _listed(url)
    if not ids:
        raise InputError(f"endpoint={url!r} lists no model at /v1/models: serve one with python -m ray_jobs.deploy")
    return ids


def _listed(url: str) -> list[str]:
    try:
        with Client(url, timeout_s=30.0) as client:
            return [identity for identity in client.models() if identity]
    except (EndpointError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"endpoint={url!r} does not list its models: {error}; give the URL that python -m ray_jobs.deploy prints"
        ) from None


@contextmanager
def open_endpoint(run: Run, model: EvaluatedModel) -> Iterator[Endpoint]:
    """The endpoint to ask: the one given, or one of our own that is gone afterwards."""
    recipe = run.recipe
    if recipe.endpoint:
        with _client(recipe, recipe.endpoint) as client:
            yield ServedModels(client, model.served)
        return
    from ray_jobs.endpoint import serving

    # A free port: an endpoint that runs here already must not be in the way. One replica: the cores beside it judge.
    config = recipe.serve.model_copy(update={"host": "127.0.0.1", "port": 0, "min_replicas": 1, "max_replicas": 1})
    with serving(model.served, config) as url, _client(recipe, url) as client:
        yield ServedModels(client, {name: name for name in model.served})


def _client(recipe: Recipe, url: str) -> Client:
    return Client(url, timeout_s=recipe.eval.request_timeout_s, sample_rate=speech_rate_hz(recipe))


class ServedModels:
    """eval.asking.Endpoint over HTTP. `ids` maps the names that requests use to the endpoint's own."""

    def __init__(self, client: Client, ids: dict[str, str]) -> None:
        self._client = client
        self._ids = ids

    def transcribe(self, wav: bytes, model: str) -> str:
        """The words of a WAV file."""
        return self._client.transcribe(wav, self._ids[model])

    def speak(self, text: str, voice: str | None, model: str) -> bytes:
        """A WAV file that speaks `text`."""
        return wav_bytes(*self._client.speech(text, voice, self._ids[model]))

    def chat(
        self, task: str, model: str, text: str | None, wav: bytes | None, voice: str | None
    ) -> tuple[str | None, bytes | None]:
        """Text and WAV file of the reply; None for the sound where a task has none."""
        reply = self._client.chat(task, self._ids[model], text=text, audio=wav, voice=voice)
        return reply.text, None if reply.wave is None else wav_bytes(reply.wave, reply.sample_rate)
