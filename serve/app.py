"""The endpoint as a Ray Serve application: one light ingress before autoscaled replicas of the language model."""

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from ray import serve as ray_serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from data.errors import InputError
from serve.admission import Gate
from serve.batcher import Batcher
from serve.config import ServeConfig
from serve.errors import ApiError
from serve.messages import ModelInfo, Reply, Request
from serve.routes import build_http_app

READY_TIMEOUT_S = 10.0
# Beyond the requests that wait, the ingress answers health checks and refusals.
SPARE_REQUESTS = 128
DRAIN_CHECK_S = 0.5


class SpeechLM:
    """A replica: every model folder loaded, one thread that computes."""

    def __init__(self, models: dict[str, str], config: dict[str, Any]) -> None:
        import torch

        from serve.engine import Engine

        settings = ServeConfig.model_validate(config)
        torch.set_num_threads(max(1, math.floor(settings.num_cpus)))
        self._executor = ThreadPoolExecutor(1)
        self._engines = {name: Engine(path, settings.dtype, settings.max_new_tokens) for name, path in models.items()}
        self._batchers: dict[str, Batcher[Request, Reply | InputError]] = {
            name: Batcher(engine.generate, settings.max_batch_size, self._executor)
            for name, engine in self._engines.items()
        }

    async def generate(self, model: str, request: Request) -> Reply | InputError:
        """One answer, computed with whatever else waits."""
        return await self._batchers[model].submit(request)

    async def describe(self, model: str) -> ModelInfo:
        """What a model can do."""
        return self._engines[model].info

    async def ready(self) -> bool:
        """True: a replica that answers is ready."""
        return True


class ReplicaBackend:
    """serve.routes.Backend over the replicas."""

    def __init__(self, replicas: DeploymentHandle, model_ids: list[str]) -> None:
        self.model_ids = model_ids
        self._replicas = replicas
        self._infos: dict[str, ModelInfo] = {}

    async def generate(self, model: str, request: Request) -> Reply:
        """Asks a replica; asks another one when that dies, since answers have no side effects."""
        try:
            answer = await self._replicas.generate.remote(model, request)
        except RayActorError:
            try:
                answer = await self._replicas.generate.remote(model, request)
            except RayActorError:
                raise ApiError(503, "the replica at work died: try again", "replica_died") from None
        if isinstance(answer, InputError):
            raise answer
        return answer

    async def describe(self, model: str) -> ModelInfo:
        """Asked of a replica once, then remembered."""
        if model not in self._infos:
            self._infos[model] = await self._replicas.describe.remote(model)
        return self._infos[model]

    async def ready(self) -> bool:
        """Whether some replica answers soon."""
        try:
            return await asyncio.wait_for(_answer_of(self._replicas.ready.remote()), READY_TIMEOUT_S)
        except (TimeoutError, RayActorError):
            return False


async def _answer_of(response: Any) -> Any:
    return await response


class _Ingress:
    """What HTTP reaches. Loads no torch, so it answers while replicas compute."""

    def __init__(self, replicas: DeploymentHandle, model_ids: list[str], config: dict[str, Any]) -> None:
        self._config = ServeConfig.model_validate(config)
        self._gate = Gate(self._config.max_queued_requests)
        self._backend = ReplicaBackend(replicas, model_ids)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_http_app(self._backend, self._config, self._gate)

    async def drain(self, timeout_s: float) -> int:
        """Refuse new requests and wait for those inside. Returns how many were still unanswered at the end."""
        return await self._gate.close(timeout_s)


def build_app(models: dict[str, str], config: ServeConfig) -> Application:
    """The application that serves `models` (id -> model folder)."""
    settings = config.model_dump(mode="json")
    # Wrapped here, not by decorators, so that the classes above stay what they are when imported.
    replicas = ray_serve.deployment(
        name="SpeechLM",
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        max_ongoing_requests=max(2 * config.max_batch_size, math.ceil(config.target_ongoing_requests)),
        graceful_shutdown_timeout_s=config.request_timeout_s,
        graceful_shutdown_wait_loop_s=DRAIN_CHECK_S,
        autoscaling_config=_autoscaling(config),
    )(SpeechLM)
    ingress = ray_serve.deployment(
        name="Ingress",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=config.max_queued_requests + SPARE_REQUESTS,
        graceful_shutdown_timeout_s=config.request_timeout_s,
        graceful_shutdown_wait_loop_s=DRAIN_CHECK_S,
    )(ray_serve.ingress()(_Ingress))
    return ingress.bind(replicas.bind(models, settings), list(models), settings)


def _autoscaling(config: ServeConfig) -> dict[str, Any]:
    """Averages over no longer than the upscale delay: a mean over Ray's 30 s would hide a burst."""
    return {
        "min_replicas": config.min_replicas,
        "max_replicas": config.max_replicas,
        "target_ongoing_requests": config.target_ongoing_requests,
        "upscale_delay_s": config.upscale_delay_s,
        "downscale_delay_s": config.downscale_delay_s,
        "look_back_period_s": max(1.0, min(config.upscale_delay_s, 10.0)),
        "metrics_interval_s": max(0.2, min(config.upscale_delay_s / 4, 1.0)),
    }
