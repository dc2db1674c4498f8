"""Where compiled ops live."""

import sys
from pathlib import Path

from model.ops import use_environment_ops


def test_every_environment_has_ops_of_its_own_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    assert use_environment_ops() == Path(sys.prefix, "torch_extensions")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert use_environment_ops() == tmp_path
