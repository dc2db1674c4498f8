"""A tokenization on a Ray cluster of several pretended nodes, in a process of its own: one cluster to a process.

    python -m tests.ray_jobs.tokenize_cluster lost_node|gpus FOLDER

Writes FOLDER/out, and FOLDER/found.json about who did it.
"""

import re
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from data import storage
from ray_jobs.tokenize_graph import tokenize_shards
from ray_jobs.tokenize_plan import plan_shards
from ray_jobs.tokenize_watch import Status
from tests.ray_jobs.tiny_audio import BlockingOnceEncoder, MeetingEncoder, tokenize_recipe


def main(what: str, folder: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1, num_gpus=1 if what == "gpus" else 0) for _ in range(2)]
        if what == "gpus":
            cluster.add_node(num_cpus=4)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        seen: set[str] = set()
        marker = folder / "prepare/blocked"

        def show(status: Status) -> None:
            seen.update(re.search(r"node (\w+)", state.actor)[1] for _, state in status.workers)
            blocked = [state.actor for _, state in status.workers if "from 'u3' on" in state.doing]
            if what == "lost_node" and marker.exists() and blocked and len(nodes) == 2:
                (lost,) = (node for node in nodes if node.node_id in blocked[0])
                nodes.remove(lost)
                cluster.remove_node(lost, allow_graceful=False)

        manifest = str(folder / "prepare/manifest.jsonl")
        config = tokenize_recipe(num_workers=2, num_gpus=1 if what == "gpus" else 0).tokenize
        kind = MeetingEncoder if what == "gpus" else BlockingOnceEncoder
        plans = list(plan_shards(manifest, 3))
        tokenize_shards(plans, manifest, {"unit": str(folder / "fit/unit")}, str(folder / "out"), config, kind, show)
        found = {"seen": sorted(seen), "nodes": sorted(node.node_id for node in nodes)}
        storage.write_json(folder / "found.json", found)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
