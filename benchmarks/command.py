"""The command line that the benchmarks share."""

import argparse
import os
import tempfile
from collections.abc import Callable
from typing import TextIO, TypeVar

from ray_jobs.job import configure_logging, run_command

SizesT = TypeVar("SizesT")


def run_benchmark(
    name: str,
    description: str | None,
    measure: Callable[[str, SizesT, TextIO], None],
    full: SizesT,
    quick: SizesT,
    argv: list[str] | None = None,
) -> int:
    """Measure in a folder at the sizes asked for; exit codes as those of a job."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: its numbers mean nothing")
    parser.add_argument("--keep", metavar="FOLDER", help="work in this folder and leave it; default: a temporary one")
    options = parser.parse_args(argv)
    sizes = quick if options.quick else full
    configure_logging()

    def act(results: TextIO) -> None:
        if options.keep:
            os.makedirs(options.keep, exist_ok=True)
            measure(os.path.abspath(options.keep), sizes, results)
            return
        with tempfile.TemporaryDirectory() as folder:
            measure(folder, sizes, results)

    return run_command(name, act)
