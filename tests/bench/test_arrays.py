"""Arrays a grid keeps: what is in the file, that it reaches the store whole, and that a later wish is met."""

from pathlib import Path

import numpy as np
import pytest

from bench.arrays import Save, read_arrays, write_arrays
from bench.tracking import Store
from tests.bench.run_tools import bench, cell_metrics

GRID = """
name: kept
methods: [robult, unimodal]
datasets: [digits]
label_ratios: [0.1]
corruptions: [mask: {upper: 0.5}]
seeds: 1
train: {epochs: 2, batch_size: 128}
executor: {devices: cpu, slots: 1}
"""
SAVE = "save: [embeddings, predictions, pseudo_labels]\n"


def kept(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    store = Store(f"sqlite:///{folder / 'mlflow.db'}", "kept", create=False)
    return {tags["method"]: read_arrays(path) for tags, path in store.arrays()}


def test_arrays_are_kept_beside_equal_results_and_a_later_wish_is_met(tmp_path: Path) -> None:
    (tmp_path / "kept.yaml").write_text(GRID)
    assert bench("run", "kept.yaml", cwd=tmp_path).returncode == 0
    before = cell_metrics(tmp_path)
    assert kept(tmp_path) == {}
    (tmp_path / "kept.yaml").write_text(GRID + SAVE)
    assert "2 trainings, 10 cells; none done yet" in bench("plan", "kept.yaml", cwd=tmp_path).stdout  # not with arrays
    again = bench("run", "kept.yaml", cwd=tmp_path)
    assert again.returncode == 0
    assert "2 finished trainings are repeated for the arrays" in again.stderr
    assert cell_metrics(tmp_path) == before
    assert "nothing to do" in bench("run", "kept.yaml", cwd=tmp_path).stderr

    arrays = kept(tmp_path)
    robult, n = arrays["robult"], 360
    assert robult["embedding/upper+lower/s"].shape == (n, 128)
    assert {name for name in robult if name.startswith("embedding/upper/")} == {
        "embedding/upper/s", "embedding/upper/z/upper", "embedding/upper/u/upper",
    }  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(robult["embedding/upper+lower/z/upper"], axis=1), 1, atol=1e-5)
    conditions = {name.removeprefix("prediction/") for name in robult if name.startswith("prediction/")}
    assert conditions == {"upper", "lower", "upper+lower", "upper@mask(upper)=0.5", "upper+lower@mask(upper)=0.5"}
    accuracy = float((robult["prediction/upper"].argmax(1) == robult["target"]).mean())
    stored = {value for (cell, metric), value in before.items() if cell.endswith("-upper") and metric == "last/acc"}
    assert any(accuracy == pytest.approx(value) for value in stored)

    weight, pairs, pseudo, true, labelled = (
        robult[f"pseudo/2/{x}"] for x in ("weight", "pairs", "pseudo", "true", "labelled")
    )
    assert weight.shape == pairs.shape == (len(true), 2, 128, 128)
    assert (pseudo[labelled] == true[labelled]).all()
    same = pseudo[:, None, :, None] == pseudo[:, None, None, :]
    assert not (pairs & ~same).any()
    assert not (pairs & labelled[:, None, :, None] & labelled[:, None, None, :]).any()
    assert not any(name.startswith("pseudo/") for name in arrays["unimodal"])


def test_what_is_kept_of_another_checkpoint_is_something_else() -> None:
    assert Save(("embeddings",), "best").words.isdisjoint(Save(("embeddings",), "last").words)


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, {"x/y": np.arange(3)})
    assert read_arrays(path)["x/y"].tolist() == [0, 1, 2]
    assert read_arrays(path, ["z"]) == {}
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"a\.npz cannot be read"):
        read_arrays(path)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.npz").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        write_arrays(tmp_path / "a.npz", {"x": np.zeros(1)})
    assert list(tmp_path.rglob("*.tmp")) == []
