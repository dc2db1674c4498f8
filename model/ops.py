"""Where DeepSpeed's compiled ops live: in this environment, beside the packages they are compiled against.

PyTorch's default is one folder per user. Two environments then rebuild each other's op by turns, and a build that is
killed leaves a lock on which every later process of either waits for ever.
"""

import os
import sys
from pathlib import Path

FOLDER = "torch_extensions"


def use_environment_ops() -> Path:
    """Point PyTorch's extension builder at this environment, unless TORCH_EXTENSIONS_DIR says otherwise."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix, FOLDER))))


def build_ops() -> None:
    """Compile the CPU communication op. Nobody else may be building: a lock that is left is removed."""
    for lock in use_environment_ops().glob("*/lock"):
        lock.unlink()
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    ShareMemCommBuilder().load(verbose=False)
