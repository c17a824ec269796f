"""Train on one data set, test on another: what is matched, what is refused, and that it transfers."""

import tracemalloc

import numpy as np
import pytest
from pydantic import Field, ValidationError

from datasets.base import SPLITS, Data, DataConfig, DataSet, Part
from datasets.errors import DataError, UserError
from datasets.seeds import generator
from datasets.store import content_problems, fingerprint, spec_of
from datasets.tasks import Binary
from datasets.transfer import Transfer, TransferConfig, fit_steps
from tests.bench import run_tools
from tests.bench.run_tools import bench, query, write_grid

TOY = "tests.datasets.test_transfer:Toy"
BIT = {"redundancy": 1, "uniqueness": 0, "synergy": 0, "task": "binary", "imbalance": 0.3, "n_nuisance": 0}


class ToyConfig(DataConfig):
    dim: int = 4
    steps: int = 0
    n_modalities: int = 2
    view: int = Field(default=0, description="which linear view of the latent quantities")
    test_shift: float = 0.0
    broken: bool = False


class Toy(DataSet):
    """Two skewed quantities in linear views of any width; with steps, sequences with padding in front."""

    name = "toy"
    summary = source = licence = "-"
    Config = ToyConfig
    config: ToyConfig

    def spec(self):
        return spec_of(self.name, Binary(), self._parts())

    def load(self):
        return Data(self.spec(), self._parts())

    def _parts(self):
        return {split: self._part(split, n) for split, n in zip(SPLITS, (40, 10, 10), strict=True)}

    def _part(self, split, n):
        config, stream = self.config, generator("toy", split)
        latent = stream.exponential(size=(n, max(config.steps, 1), 2)) * (2, 1)
        padded = np.arange(max(config.steps, 1)) < stream.integers(0, max(config.steps, 1), (n, 1))
        inputs = {}
        for i in range(config.n_modalities):
            basis = np.linalg.qr(generator("view", config.view, config.dim, i).normal(size=(config.dim, 2)))[0]
            x = np.where(padded[:, :, None], 0, latent @ basis.T + config.test_shift * (split == "test"))
            x = x if config.steps else x[:, 0]
            inputs[f"m{i}"] = x.astype(np.float32)
        if config.broken and split == "train":
            inputs["m0"][0] = np.nan
        return Part(inputs, (latent[:, -1, 0] > 1).astype(np.int64))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    return tmp_path


def transfer(train=None, test=None, name=TOY, **options):
    config = {"train": name, "test": name, "train_options": train or {}, "test_options": test or {}}
    return Transfer(TransferConfig(**config | options))


def accuracy(data):
    from sklearn.linear_model import LogisticRegression

    x, y = zip(*[(np.concatenate(list(part.inputs.values()), 1), part.target) for part in data.parts.values()],
               strict=True)  # fmt: skip
    return LogisticRegression().fit(x[0], y[0]).score(x[2], y[2])


def test_a_bit_shown_in_other_features_is_still_read_after_pca():
    found = transfer(BIT | {"dim": 6}, BIT | {"dim": 15, "data_seed": 1}, "synthetic").load()
    constant = 1 - found.parts["test"].target.mean()
    assert constant < 0.75
    assert accuracy(found) > 0.98
    assert found.spec.modalities == {"m1": (6,), "m2": (6,), "m3": (6,)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"align": "tsne", "width": {"m0": 2, "m1": 2}},
        {"modalities": "m1"},
        {"width": {"m1": 2}},
    ],
)
@pytest.mark.parametrize("steps", [0, 3])
def test_description_arrays_and_splits(options, steps):
    there = transfer({"dim": 4, "steps": steps}, {"dim": 6, "steps": steps, "view": 1}, **options)
    spec, data = there.spec(), there.load()
    assert data.spec == spec
    assert content_problems(spec, data.parts) == []
    assert spec.sizes == {"train": 40, "valid": 10, "test": 10}
    test = Toy(ToyConfig(dim=6, steps=steps, view=1)).load().parts["test"]
    assert np.array_equal(data.parts["test"].target, test.target)
    for name, x in data.parts["test"].inputs.items():
        assert np.array_equal(x.any(axis=-1), test.inputs[name].any(axis=-1))  # padding is where it was
    again = type(there)(there.config).load()  # from the cache
    assert fingerprint(spec.task, again.parts) == fingerprint(spec.task, data.parts)


def test_no_test_row_has_a_say_in_the_features_of_pca():
    plain = transfer({"dim": 4}, {"dim": 6}).load()
    shifted = transfer({"dim": 4, "test_shift": 50.0}, {"dim": 6, "test_shift": 50.0}).load()
    for split in ("train", "valid"):
        for name, x in plain.parts[split].inputs.items():
            assert x.tobytes() == shifted.parts[split].inputs[name].tobytes()
    assert (np.abs(shifted.parts["test"].inputs["m0"]) > np.abs(plain.parts["test"].inputs["m0"]).max()).any()


def test_tsne_leaves_the_data_set_alone_that_has_the_width_as_the_paper_does():
    found = transfer({"dim": 6}, {"dim": 3}, align="tsne").load()
    test = Toy(ToyConfig(dim=3)).load()
    assert found.parts["test"].inputs["m0"].tobytes() == test.parts["test"].inputs["m0"].tobytes()
    train = Toy(ToyConfig(dim=6)).load()
    assert found.parts["train"].inputs["m0"].shape == (40, 3)
    assert not np.isin(found.parts["train"].inputs["m0"], train.parts["train"].inputs["m0"]).any()


@pytest.mark.parametrize("align", ["none", "pca", "tsne"])
def test_equal_features_are_passed_on_untouched(align, home):
    found = transfer({"dim": 4}, {"dim": 4, "test_shift": 1.0}, align=align)
    test = Toy(ToyConfig(dim=4, test_shift=1.0)).load()
    assert found.load().parts["test"].inputs["m1"].tobytes() == test.parts["test"].inputs["m1"].tobytes()
    assert not (home / ".cache").exists()
    assert found.spec().fingerprint == transfer({"dim": 4}, {"dim": 4, "test_shift": 1.0}).spec().fingerprint


def test_steps_are_added_and_cut_in_front():
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3) + 1
    assert np.array_equal(fit_steps(x, (2, 3)), x[:, 2:])
    padded = fit_steps(x, (6, 3))
    assert np.array_equal(padded[:, 2:], x)
    assert not padded[:, :2].any()
    for steps in (3, 7):
        found = transfer({"steps": 5}, {"steps": steps})
        data = found.load()
        assert content_problems(found.spec(), data.parts) == []
        assert {part.inputs["m0"].shape[1] for part in data.parts.values()} == {5}


@pytest.mark.parametrize(
    "changed",
    [
        {"train": {"dim": 4, "view": 3}},
        {"test": {"dim": 6, "view": 3}},
        {"align": "tsne"},
        {"width": {"m0": 3}},
        {"modalities": "m0"},
    ],
)
def test_the_fingerprint_follows_all_that_changes_an_array(changed):
    plain = {"train": {"dim": 4}, "test": {"dim": 6}}
    assert transfer(**plain | changed).spec().fingerprint != transfer(**plain).spec().fingerprint


def test_seed_and_landmarks_count_for_tsne_alone():
    def told(**options):
        return transfer({"dim": 6}, {"dim": 3}, **options).spec().fingerprint

    assert told(seed=1, landmarks=50) == told()
    assert len({told(align="tsne"), told(align="tsne", seed=1), told(align="tsne", landmarks=50)}) == 3


def test_describing_reads_no_array():
    large = [BIT | {"dim": 40, "n_train": 5_000_000}, BIT | {"dim": 20, "n_test": 5_000_000}]
    there = transfer(*large, "synthetic")
    there.spec()  # imports
    tracemalloc.start()
    there.spec()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({"train": {"dim": 4}, "test": {"dim": 6}, "align": "none"},
         "m0 has 4 in 'toy' and 6 in 'toy' features, which align: none leaves different; set align: pca"),
        ({"test": {"n_modalities": 3}},
         "needs the same modalities: 'toy' has m0, m1, 'toy' m0, m1, m2; modalities: m0+m1 uses the common ones"),
        ({"modalities": "m0+m3"}, "modalities names 'm3', which 'toy' and 'toy' do not both have"),
        ({"width": {"m11": 2}}, "width names 'm11', which is not in use. Did you mean 'm1'?"),
        ({"train": {"dim": 4}, "test": {"dim": 6}, "width": {"m1": 5}},
         "width asks for 5 features of m1, 'toy' has 4."),
        ({"test": {"steps": 3}}, "m0 is a vector in 'toy' and a sequence in 'toy'; leave it out with modalities"),
        ({"train": {"dmi": 4}}, "train_options: data set 'tests.datasets.test_transfer:Toy' has no option 'dmi'. "
                                "Did you mean 'dim'? It has: dim, steps"),
        ({"test": {"dim": "four"}}, "test_options: dim: Input should be a valid integer."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_sentence(there, told):
    with pytest.raises(UserError) as caught:
        transfer(**there).spec()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_refusals():
    def refused(match, **options):
        with pytest.raises(UserError, match=match):
            Transfer(TransferConfig(**options)).spec()

    refused("needs one task: 'digits' has multiclass .n_classes 10., 'synthetic' multiclass .n_classes 16.",
            train="digits", test="synthetic")  # fmt: skip
    refused("transfer': train: unknown data set 'digit'. Did you mean 'digits'", train="digit")
    refused("test: 'transfer' takes two data sets other than itself", train="digits", test="transfer")
    refused("'cmu_mosei' is not prepared")
    refused("train_options: a binary label made of 3 bits takes no flips", train="synthetic",
            train_options={"task": "binary", "uniqueness": 0, "redundancy": 3, "synergy": 0,
                           "redundancy_flip": 0.1})  # fmt: skip
    with pytest.raises(ValidationError, match="width needs a way to reach it"):
        TransferConfig(align="none", width={"text": 3})
    with pytest.raises(UserError, match="prepare the two it is made of"):
        Transfer.prepare(None, None)
    with pytest.raises(DataError, match="m0 of 'toy' holds values that are NaN"):
        transfer({"dim": 4, "broken": True}, {"dim": 6}).load()


GRID = """
name: transfer
methods: [unimodal, constant]
datasets:
  - transfer:
      label: views
      train: synthetic
      test: synthetic
      train_options: {redundancy: 1, uniqueness: 0, synergy: 0, task: binary, imbalance: 0.3, n_nuisance: 0, dim: 6}
      test_options: {redundancy: 1, uniqueness: 0, synergy: 0, task: binary, imbalance: 0.3, n_nuisance: 0, dim: 9}
      align: [pca, tsne]
      width: {m1: 3}
      landmarks: 60
label_ratios: [1.0]
modalities: [full, m1]
seeds: 1
train: {epochs: 5, batch_size: 64, lr: 0.01}
"""


@pytest.mark.slow
def test_a_grid_runs_and_pca_beats_the_constant_predictor(tmp_path, monkeypatch):
    environment = run_tools.environment() | {"BENCH_DATA": str(tmp_path / "stores")}
    monkeypatch.setattr(run_tools, "environment", lambda: environment)
    done = bench("run", str(write_grid(tmp_path, GRID)), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = query(
        tmp_path,
        "select d.value, m.value, x.value from runs r "
        "join tags d on d.run_uuid = r.run_uuid and d.key = 'dataset' "
        "join tags m on m.run_uuid = r.run_uuid and m.key = 'method' "
        "join tags s on s.run_uuid = r.run_uuid and s.key = 'stage' and s.value = 'cell' "
        "join tags o on o.run_uuid = r.run_uuid and o.key = 'modalities' and o.value = 'm1+m2+m3' "
        "join latest_metrics x on x.run_uuid = r.run_uuid and x.key = 'last/acc'",
    )
    found = {("pca" if "align=pca" in name else "tsne", method): acc for name, method, acc in rows}
    assert found.keys() == {(way, method) for way in ("pca", "tsne") for method in ("unimodal", "constant")}
    assert found["pca", "unimodal"] > 0.95 > 0.75 > found["pca", "constant"]
    # PCA changes three modalities of both data sets; t-SNE m1 of both, and what is wider in the second.
    assert len(list((tmp_path / "stores" / ".cache").glob("*.safetensors"))) == 6 + 4
