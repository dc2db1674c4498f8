"""Configuration of the endpoint."""

from typing import Literal

from pydantic import Field

from data.frozen import Frozen, placement


class ServeConfig(Frozen):
    """deploy: model folder -> HTTP endpoint."""

    host: str = placement("127.0.0.1", "address to listen on")
    port: int = placement(8000, "port to listen on; 0 takes a free one", ge=0, le=65535)
    min_replicas: int = placement(1, "replicas kept when idle", ge=0)
    max_replicas: int = placement(2, "replicas under load", ge=1)
    target_ongoing_requests: float = placement(4.0, "requests in flight per replica that autoscaling aims at", gt=0)
    upscale_delay_s: float = placement(5.0, "load lasts this long before a replica is added", ge=0)
    downscale_delay_s: float = placement(60.0, "idleness lasts this long before one is removed", ge=0)
    max_queued_requests: int = placement(128, "more waiting requests than this are answered 429", ge=1)
    max_batch_size: int = placement(16, "requests decoded together", ge=1)
    request_timeout_s: float = placement(120.0, "a request is given up after this time", gt=0)
    max_audio_s: float = placement(60.0, "longer audio is refused with 413", gt=0)
    max_upload_bytes: int = placement(25 * 2**20, "larger uploads are refused with 413", ge=1)
    num_cpus: float = placement(1.0, "CPUs of one replica", ge=0)
    num_gpus: float = placement(
        0.0, "GPUs of one replica, for its audio tokenizers; the language model decodes on CPUs", ge=0
    )
    dtype: Literal["float64", "float32", "bfloat16"] = Field(
        "float64",
        description="of decoding; float64 keeps greedy tokens the same whatever is batched together",
    )
    max_new_tokens: int = Field(400, ge=1, description="tokens generated for one request at most")
