"""Compile DeepSpeed's CPU communication op ahead of the first training, which would otherwise wait for it."""

import sys

from model.ops import build_ops


def main() -> int:
    """Build the op. Exit 1 with a remedy when the compiler or the Python headers are missing."""
    import torch

    if torch.cuda.is_available():
        return 0
    try:
        build_ops()
    except Exception as error:
        print(f"DeepSpeed's CPU op did not build: {error}\nInstall g++ and the Python headers, then try again.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
