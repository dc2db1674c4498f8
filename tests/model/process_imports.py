"""What the server of test processes imports once."""

import contextlib
import os

os.environ["DS_ACCELERATOR"] = "cpu"
with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401
