"""A Ray cluster of two nodes on this machine: the same results as local workers, a node lost and no cell."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.executors.ray import _part_of_a_gpu, cause_of_death
from tests.bench.run_tools import (
    ODD,
    ROOT,
    bench,
    cell_metrics,
    environment,
    finished_cells,
    query,
    start,
    statuses,
    write_grid,
)
from tests.bench.test_run import until

GRID = f"""
name: cluster
methods: [gmc, {{"{ODD}:Linear": {{pause_s: 0.1, label: slow}}}}]
datasets: [digits]
label_ratios: [0.5]
seeds: 5
train: {{epochs: 2}}
save: [predictions]
"""
N_TRAININGS, N_CELLS = 10, 30


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head with one CPU; a test adds nodes."""
    pytest.importorskip("ray", reason="needs the extra: pip install 'robult-bench[ray]'")
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # short: it holds sockets
        monkeypatch.setenv("RAY_TMPDIR", folder)  # not `temp_dir`: with that, Ray still wants its usual folder
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield made
        made.shutdown()


@pytest.mark.slow
def test_a_node_is_lost_and_no_cell(cluster: Any, tmp_path: Path) -> None:
    """The cluster's results are those of local workers bit for bit; the arrays too come back."""
    second = cluster.add_node(num_cpus=1)
    here, there = tmp_path / "local", tmp_path / "ray"
    write_grid(here, GRID)
    write_grid(there, GRID + f"executor: {{kind: ray, address: '{cluster.address}'}}\n")
    process = start("run", "grid.yaml", cwd=there)
    until(lambda: len(finished_cells(there)) >= 3 or process.poll() is not None, timeout_s=240)
    cluster.remove_node(second, allow_graceful=False)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out == "", "what Ray says of its nodes is not for the user's terminal"
    allowed = ("trainings", "left", "tried again on another machine", "MLflow")
    assert all(any(word in line for word in allowed) for line in err.splitlines()), err
    assert "its node left the cluster; tried again on another machine" in err
    assert len(finished_cells(there)) == N_CELLS
    assert statuses(there, "training") == ["FINISHED"] * N_TRAININGS
    assert not list((there / ".bench/cluster/outcomes").iterdir())
    assert len(list((there / "mlartifacts").rglob("arrays.npz"))) == N_TRAININGS

    assert bench("run", "grid.yaml", cwd=here).returncode == 0
    assert cell_metrics(there) == cell_metrics(here)


@pytest.mark.slow
def test_failures_on_a_cluster_cost_only_themselves(cluster: Any, tmp_path: Path) -> None:
    """A worker that kills itself, one that raises and one over its time, and what is unharmed beside them."""
    write_grid(
        tmp_path,
        f"""
name: failing
methods:
  - constant
  - "{ODD}:Raising": {{label: raising}}
  - "{ODD}:Dying": {{label: dying}}
  - "{ODD}:Linear": {{label: late, pause_s: 60.0}}
datasets: [digits]
seeds: 1
train: {{epochs: 1}}
executor: {{kind: ray, address: '{cluster.address}', timeout_s: 15}}
""",
    )
    run = bench("run", "grid.yaml", cwd=tmp_path, timeout=400)
    assert run.returncode == 1
    assert "RuntimeError: shapes cannot be multiplied" in run.stderr
    assert "its worker process on the cluster was killed" in run.stderr
    assert "took longer than executor.timeout_s = 15 s" in run.stderr
    assert statuses(tmp_path, "training") == ["FAILED"] * 3 + ["FINISHED"]
    assert query(tmp_path, "SELECT COUNT(*) FROM tags WHERE key = 'failure'") == [(3,)]


def refused(executor: str, folder: Path) -> str:
    """What `bench run` says to an executor it cannot use."""
    write_grid(folder, f"name: r\nmethods: [constant]\ndatasets: [digits]\nseeds: 1\nexecutor: {executor}\n")
    run = bench("run", "grid.yaml", cwd=folder)
    assert run.returncode in (1, 2)
    assert run.stdout == ""
    (told,) = [line for line in run.stderr.splitlines() if line.startswith("bench: ")]
    return told


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_told_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'robult-bench[ray]'")
    told = refused("{kind: ray, address: '127.0.0.1:9'}", tmp_path)
    assert told.startswith("bench: no Ray cluster answers at executor.address '127.0.0.1:9': ")


@pytest.mark.parametrize("address", ["ray://head:10001", "head", ":6379"])
def test_an_address_of_no_kind_is_refused(address: str) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'robult-bench[ray]'")
    from bench.executors.ray import connect
    from datasets.errors import UserError

    with pytest.raises(UserError, match="write auto, local or HOST:PORT"):
        connect(address)


def test_without_ray_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from bench.executors.ray import connect\n"
        "from datasets.errors import UserError\n"
        "try: connect('auto')\n"
        "except UserError as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert told.stdout == "executor.kind 'ray' needs Ray: pip install 'robult-bench[ray]'.\n", told.stderr


def test_what_ray_guesses_of_a_death_is_not_taken_for_a_finding() -> None:
    errors = pytest.importorskip("ray", reason="needs the extra: pip install 'robult-bench[ray]'").exceptions
    killed = errors.ActorDiedError()
    killed.error_msg += " Some common causes: (1) the process was killed by the OOM killer due to high memory usage"
    assert cause_of_death(killed, errors) == {"died": "its worker process on the cluster was killed"}
    killed.error_msg += " The actor died because its node has died."
    assert cause_of_death(killed, errors) == {"lost": "its node left the cluster"}
    assert cause_of_death(errors.OutOfMemoryError("2 of 2 GB used"), errors)["out_of_memory"]


def test_slots_that_share_gpus_find_room() -> None:
    assert _part_of_a_gpu(0, 8) == 0
    assert _part_of_a_gpu(8, 8) == 1
    assert _part_of_a_gpu(8, 3) == 1
    for n_gpus, n_slots in ((8, 16), (4, 12), (1, 3), (2, 7)):
        assert int(1 / _part_of_a_gpu(n_gpus, n_slots)) * n_gpus >= n_slots
