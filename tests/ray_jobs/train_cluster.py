"""A training on a Ray cluster of pretended nodes that loses one of them, in a process of its own.

    python -m tests.ray_jobs.train_cluster RUNS_DIR FOLDER

Trains into FOLDER; FOLDER/lost.json says after which step a node with a worker on it was taken away.
"""

import sys
import threading
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from data import storage
from model.checkpoint_files import complete_checkpoints, step_of
from ray_jobs.train_parts import load_parts
from ray_jobs.train_run import run_training
from tests.ray_jobs.tiny_store import tiny_recipe, write_inputs
from tests.ray_jobs.train_process import LONG, wait


def main(runs_dir: Path, folder: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]  # one to spare
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        recipe = tiny_recipe(runs_dir, *LONG)
        parts = load_parts(recipe, write_inputs(recipe))

        def lose() -> None:
            found = wait(lambda: complete_checkpoints(str(folder / "checkpoints")), "a checkpoint")
            free = ray._private.state.available_resources_per_node()
            busy = next(node for node in nodes if not free.get(node.node_id, {}).get("CPU"))
            cluster.remove_node(busy, allow_graceful=False)
            storage.write_json(folder / "lost.json", {"after": step_of(found[-1])})

        threading.Thread(target=lose, daemon=True).start()
        run_training(parts, str(folder))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
