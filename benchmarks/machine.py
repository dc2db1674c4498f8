"""What a benchmark says of where it ran."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil


def hardware() -> dict[str, Any]:
    """The machine, in a few words."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory_gb = round(psutil.virtual_memory().total / 1e9)
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count(), "memory_gb": memory_gb}


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
