"""A batch on a Ray cluster of two nodes, both started here, reached by its address as any other."""

import os

import pytest

from zero123s.cluster.manifest import MANIFEST, read_checked
from zero123s.commands.batch import main

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

pytestmark = pytest.mark.end_to_end


@pytest.mark.slow
def test_a_batch_uses_two_nodes_and_survives_kills(image_folder, batch_config, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # what else runs here is not our business
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        overrides = ["--config", str(batch_config), "--profile", "none", "--address", cluster.address]
        out = tmp_path / "out"
        slow = ["system.seconds_per_step=1", "system.kill_above=0.6"]
        assert main([str(image_folder), "--out", str(out), *overrides, *slow]) == 0
    finally:
        ray.shutdown()
        cluster.shutdown()
    items = {i["name"]: i for i in read_checked(out / MANIFEST)["items"]}
    assert {name: i["attempts"] for name, i in items.items()} == {"p0": 1, "p1": 1, "p2": 1, "p3": 2}
    assert len({i["node"] for i in items.values()}) == 2
    assert all((out / "items" / name / "export" / "walker.txt").is_file() for name in items)
    assert os.getpid() not in {i["process"] for i in items.values()}
