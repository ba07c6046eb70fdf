"""Trials on several nodes."""

from __future__ import annotations

from typing import Any

import pytest

import skate
from skate import tune
from skate.cluster_utils import Cluster


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    node = skate.get_runtime_context().get_node_id()
    for step in range(begin + 1, 9):
        saved = tune.Checkpoint.from_dict({"step": step, "ballast": bytes(300_000)})
        tune.report({"step": step, "begin": begin, "node": node}, checkpoint=saved)


@pytest.mark.timeout(120)
def test_a_trial_goes_on_elsewhere_when_its_node_dies_with_its_checkpoints() -> None:
    skate.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1, resources={"there": 1}) for _ in range(2)]

    class KillNode(tune.Callback):
        killed = ""

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            if trial.iterations == 5 and not self.killed:
                self.killed = result["node"]
                (node,) = [node for node in nodes if node.node_id == self.killed]
                cluster.remove_node(node, allow_graceful=False)

    killer = KillNode()
    try:
        skate.init(cluster.address)
        (trial,) = tune.run(
            train,
            resources_per_trial={"cpu": 1, "there": 1},
            callbacks=[killer],
            stop=lambda trial_id, result: False,  # have every report looked at
            max_failures=1,
            verbose=0,
        ).trials
    finally:
        skate.shutdown()
        cluster.shutdown()
    assert killer.killed
    assert (trial.status, trial.failures) == ("TERMINATED", 1)
    assert trial.history.column("step") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert trial.last_result["node"] != killer.killed
