"""A real deployment on Ray Serve: the official client, our own, and replicas that come and go with the load."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest

from data.audio import wav_bytes
from serve.client import Client, RefusedError
from serve.config import ServeConfig

pytestmark = [pytest.mark.slow, pytest.mark.ray]
DEADLINE_S = 120.0


def replicas_running() -> int:
    """Replicas of the language model that are up."""
    from ray import serve as ray_serve

    deployments = ray_serve.status().applications["antiphon"].deployments
    return deployments["SpeechLM"].replica_states.get("RUNNING", 0)


def wait_for(condition: Callable[[], bool], what: str) -> float:
    """Seconds until `condition` holds; fails after DEADLINE_S."""
    never, started = threading.Event(), time.monotonic()
    while not condition():
        assert time.monotonic() - started < DEADLINE_S, f"{what} did not happen within {DEADLINE_S:g} s"
        never.wait(0.1)
    return time.monotonic() - started


def test_clients_are_answered_and_replicas_follow_the_load(
    ray_cluster: None, tiny_model_folder: str, tone, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray_jobs.endpoint import serving

    config = ServeConfig(
        port=0,
        num_cpus=0.2,
        max_replicas=2,
        target_ongoing_requests=1,
        upscale_delay_s=0.5,
        downscale_delay_s=2,
        max_new_tokens=60,
        max_batch_size=4,
    )
    models = {"final": tiny_model_folder, "before_lora": tiny_model_folder}
    with serving(models, config) as url, Client(url) as client:
        check_official_client(url, tone)
        check_own_client(client, tone)
        assert replicas_running() == 1
        stop = threading.Event()

        def load() -> int:
            answered = 0
            while not stop.is_set():
                client.speech("three four five", "ann", "final")
                answered += 1
            return answered

        with ThreadPoolExecutor(6) as pool:
            workers = [pool.submit(load) for _ in range(6)]
            up_s = wait_for(lambda: replicas_running() == 2, "a second replica")
            stop.set()
            answered = sum(worker.result() for worker in workers)
        down_s = wait_for(lambda: replicas_running() == 1, "the return to one replica")
    with capsys.disabled():
        print(
            f"\nreplicas 1 -> 2 in {up_s:.1f} s of load, 2 -> 1 in {down_s:.1f} s after; {answered} answers meanwhile"
        )


def check_official_client(url: str, tone) -> None:
    with openai.OpenAI(api_key="none", base_url=f"{url}/v1") as client:
        assert [model.id for model in client.models.list()] == ["final", "before_lora"]
        file = ("a.wav", wav_bytes(tone(0.5), 16000))
        assert isinstance(client.audio.transcriptions.create(file=file, model="final").text, str)
        speech = client.audio.speech.create(model="final", input="three", voice="ann", response_format="wav")
        assert speech.content.startswith(b"RIFF")
        chat = client.chat.completions.create(model="before_lora", messages=[{"role": "user", "content": "three"}])
        assert isinstance(chat.choices[0].message.content, str)
        with pytest.raises(openai.BadRequestError, match="choose from"):
            client.audio.speech.create(model="final", input="three", voice="eve")


def check_own_client(client: Client, tone) -> None:
    assert client.models() == ["final", "before_lora"]
    wav = wav_bytes(tone(0.5), 16000)
    assert client.transcribe(wav, "final") == client.transcribe(wav, "before_lora")
    wave, sample_rate = client.speech("three", "bob", "final")
    assert (wave.dtype, sample_rate) == (np.float32, 16000)
    reply = client.chat("s2s", "final", audio=wav, voice="bob")
    assert reply.wave is not None
    assert reply.question is not None
    assert client.chat("text_to_music", "final", text="a flute").wave is not None
    with pytest.raises(RefusedError, match="choose from"):
        client.chat("sing", "final", text="la")
