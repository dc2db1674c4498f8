"""What holds for the tree as a whole."""

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ray_jobs", "serve", "eval", "model", "data", "configs")


def test_gitignore_hides_no_source_file():
    """Ray ships the working directory by .gitignore: a bare `data/` would leave the package behind."""
    files = [str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.*")]
    sources = [name for name in files if "__pycache__" not in name]
    assert len(sources) > 20
    ignored = subprocess.run(["git", "check-ignore", *sources], cwd=ROOT, capture_output=True, text=True)
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout == ""


def test_the_cluster_file_passes_rays_own_schema():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    start = config["head_start_ray_commands"][-1]
    assert "RAY_AUTH_MODE=token" in start
    assert "--dashboard-host=127.0.0.1" in start


def test_no_file_is_called_utils_or_like_a_module_it_would_shadow():
    names = {path.stem for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "common", "misc", "tokenize", "evaluate", "types", "queue"}
