"""What the server imports once, of which every process of the training benchmark is a fork."""

import contextlib
import os

os.environ["DS_ACCELERATOR"] = "cpu"
with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
    import deepspeed  # noqa: F401
    from transformers import LlamaForCausalLM, Trainer  # noqa: F401

    import ray_jobs.train_loop  # noqa: F401
