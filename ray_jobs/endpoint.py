"""An endpoint inside the Ray session at hand: started, awaited, drained, gone."""

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import httpx
import ray
from ray import serve as ray_serve
from ray.util import get_node_ip_address

from ray_jobs.session import start_ray
from serve.app import build_app
from serve.config import ServeConfig

APP_NAME = "antiphon"
HEALTH_TIMEOUT_S = 120.0
HEALTH_EVERY_S = 0.2
log = logging.getLogger("antiphon")


@contextmanager
def serving(models: dict[str, str], config: ServeConfig) -> Iterator[str]:
    """Serve `models` (id -> model folder) and yield http://HOST:PORT once /health answers 200.

    On leaving, requests inside are answered first. One at a time in a Ray session: Serve has one HTTP proxy.
    """
    start_ray()
    port = config.port or free_port(config.host)
    ray_serve.start(http_options={"host": config.host, "port": port, "location": "HeadOnly"})
    try:
        ingress = ray_serve.run(build_app(models, config), name=APP_NAME, route_prefix="/")
        host = get_node_ip_address() if config.host in ("0.0.0.0", "::") else config.host
        url = f"http://{host}:{port}"
        await_health(url)
        yield url
        unanswered = ingress.drain.remote(config.request_timeout_s).result(timeout_s=config.request_timeout_s + 30)
        if unanswered:
            log.warning("%d requests were still unanswered after %g s", unanswered, config.request_timeout_s)
    finally:
        ray_serve.shutdown()


def serve_until_stopped(models: dict[str, str], config: ServeConfig, out: TextIO) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Prints the URL to `out`."""
    stop = threading.Event()
    start_ray()
    # After Ray has set its own: those would exit at once, with requests still inside.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with serving(models, config) as url:
        print(url, file=out, flush=True)
        log.info("serving %s at %s; SIGTERM drains and stops", ", ".join(models), url)
        stop.wait()
        log.info("draining")
    ray.shutdown()


def free_port(host: str) -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def await_health(url: str, timeout_s: float = HEALTH_TIMEOUT_S) -> None:
    """Wait until /health answers 200. Raises TimeoutError with what it answered last."""
    never = threading.Event()
    last = "nothing"
    with httpx.Client(trust_env=False, timeout=15.0) as http:
        for _ in range(int(timeout_s / HEALTH_EVERY_S)):
            try:
                response = http.get(f"{url}/health")
                if response.status_code == 200:
                    return
                last = f"{response.status_code}: {response.text[:200]}"
            except httpx.HTTPError as error:
                last = repr(error)
            never.wait(HEALTH_EVERY_S)
    raise TimeoutError(f"{url}/health did not answer 200 within {timeout_s:g} s; last answer: {last}")
