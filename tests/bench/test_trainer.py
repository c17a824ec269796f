"""The training loop: what a method sees, which epoch is chosen, and that numbers repeat."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.arrays import Save
from bench.grid.file import parse_grid
from bench.grid.plan import Training, make_plan
from bench.training.evaluation import Asked, subset_masks
from bench.training.replica import TrainingFailed, draw_batches
from bench.training.trainer import Result, Trainer, selection_subsets, stage_epochs, train
from datasets.base import Data
from datasets.batch import Batch, make_batch
from datasets.catalog import DATASETS
from methods.base import Stage
from methods.registry import METHODS
from methods.unimodal import Unimodal
from tests.bench import odd_methods
from tests.bench.run_tools import ODD

SPIED: list[Batch] = []


class Spy(odd_methods.Linear):
    """Keeps every batch it is trained on."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        SPIED.append(batch)
        return super().loss(batch)


class SupervisedSpy(Spy):
    needs_labels = True  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    SPIED.clear()


def training(method: str = f"{ODD}:Linear", dataset: str = "digits", **options: Any) -> Training:
    ratio, seed = options.pop("ratio", 0.1), options.pop("seed", 0)
    settings = {"epochs": 2, "batch_size": 64} | options
    text = (
        f"methods: ['{method}']\ndatasets: [{dataset}]\nlabel_ratios: [{ratio}]\nseeds: [{seed}]\ntrain: {settings}\n"
    )
    return make_plan(parse_grid(text.replace("None", "null").replace("'", '"'))).trainings[0]


def data_of(asked: Training) -> Data:
    return DATASETS.get(asked.dataset.name)(asked.dataset.config).load()


def trainer(**options: Any) -> Trainer:
    asked = training(**options)
    return Trainer([asked], data_of(asked))


def run(**options: Any) -> Result:
    asked = training(**options)
    return train(asked, data_of(asked))


SPY = "tests.bench.test_trainer:Spy"


def test_hidden_labels_are_zero_before_a_method_sees_them() -> None:
    run(method=SPY)
    assert SPIED
    for batch in SPIED:
        assert (batch.target[~batch.labelled] == 0).all()
    assert any(batch.target[batch.labelled].any() for batch in SPIED)


def test_every_method_sees_the_same_labels_in_the_same_order() -> None:
    seen = []
    for method in (SPY, "tests.bench.test_trainer:SupervisedSpy"):
        run(method=method)
        seen.append([(batch.labelled.clone(), batch.inputs["upper"].clone()) for batch in SPIED])
        SPIED.clear()
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(*seen, strict=True))


def test_label_masks_are_nested_over_ratios() -> None:
    few, many = (trainer(ratio=ratio).labelled[0] for ratio in (0.05, 0.5))
    assert few.sum() < many.sum()
    assert (many | ~few).all()


@pytest.mark.parametrize("sampler", ["shuffle", "stratified", "labelled_only"])
def test_label_samplers(sampler: str) -> None:
    made = trainer(label_sampler=sampler, ratio=0.02, batch_size=32)
    batches = draw_batches(made.replicas[0], made.steps, made.batch_size)
    labelled = made.replicas[0].labelled
    assert batches.shape == (len(made.parts["train"]) // 32, 32)
    if sampler == "shuffle":
        assert len(np.unique(batches)) == batches.size
    elif sampler == "stratified":
        assert labelled[batches].any(axis=1).all()
        assert len(np.unique(batches)) >= 31 * len(batches)
    else:
        assert labelled[batches].all()
        counts = np.bincount(batches.ravel(), minlength=len(labelled))[labelled]
        assert counts.max() - counts.min() <= 1


def test_a_batch_without_labels_moves_nothing_in_a_supervised_method() -> None:
    """With momentum, a step with a zero gradient would still move the weights."""
    made = trainer(method="tests.bench.test_trainer:SupervisedSpy", ratio=0.01, batch_size=8, epochs=1, lr=0.1)
    states = []
    method = made.methods[0]
    real = method.loss

    def loss(batch: Batch) -> dict[str, Tensor]:
        states.append((bool(batch.labelled.any()), method.layer.weight.detach().clone()))
        return real(batch)

    method.loss = loss  # type: ignore[method-assign]
    made._enter(Stage("train"))
    made._train_epoch(0, (0.0, 1.0))
    for (had_labels, before), (_, after) in pairwise(states):
        assert torch.equal(before, after) != had_labels


def test_subsets_evaluated_together_equal_each_alone() -> None:
    made = trainer(method="robult", dataset="synthetic")
    part, subsets = made.parts["valid"], made.replicas[0].training.conditions
    (together,) = made.outputs([Asked(part, subset) for subset in subsets])
    assert together.shape == (7, len(part), made.task.width)
    masks = subset_masks(made.spec, subsets, "cpu")
    for row, subset in enumerate(subsets):
        inputs = {name: x if name in subset.split("+") else torch.zeros_like(x) for name, x in part.inputs.items()}
        available = masks[row].expand(len(part), -1)
        batch = part.batch(torch.arange(len(part)))._replace(inputs=inputs, available=available)
        with torch.no_grad():
            alone = made.methods[0].eval().predict(batch).numpy()
        np.testing.assert_allclose(together[row], alone, atol=1e-5)


def test_results_repeat_and_do_not_depend_on_global_random_state() -> None:
    first = run(method="robult")
    torch.manual_seed(999)
    np.random.seed(999)  # noqa: NPY002 - disturbed on purpose
    second = run(method="robult")
    assert first.cells == second.cells
    keep = [{k: v for k, v in row.items() if k != "time_ms"} for row in first.curves]
    assert keep == [{k: v for k, v in row.items() if k != "time_ms"} for row in second.curves]


def test_seeds_differ() -> None:
    assert run(seed=0).cells != run(seed=1).cells


def test_the_best_epoch_is_the_one_with_the_best_score_and_its_weights_are_used() -> None:
    result = run(method="gmc", epochs=12, lr=0.05)
    scores = [row["valid/score"] for row in result.curves]
    assert result.best_epoch == int(np.argmax(scores)) + 1
    short = run(method="gmc", epochs=result.best_epoch, lr=0.05)
    for subset, cell in result.cells.items():
        assert cell["best"] == pytest.approx(short.cells[subset]["last"])


def test_the_score_is_better_when_higher_even_for_errors() -> None:
    made = trainer(method="constant", dataset="{synthetic: {task: regression}}")
    made.methods[0].finish(made.parts["train"].batch(torch.arange(100)))
    (row,) = made._validate()
    assert row["valid/score"] == pytest.approx(-row["valid/mae"])
    assert np.isnan(row["valid/corr"])


def test_selection_is_linear_in_the_number_of_modalities() -> None:
    assert selection_subsets(trainer(dataset="synthetic").spec) == ["m1", "m2", "m3", "m1+m2+m3"]


def test_a_loss_that_is_not_finite_is_named() -> None:
    with pytest.raises(TrainingFailed, match="loss term 'sup' became nan in epoch 1"):
        run(method=f"{ODD}:Diverging")


def test_plateau_lowers_the_rate() -> None:
    result = run(lr=1e-7, epochs=25, schedule="plateau", batch_size=512)
    rates = [row["lr"] for row in result.curves]
    assert rates[0] == 1e-7
    assert rates[-1] == pytest.approx(1e-8)
    assert "valid/loss" in result.curves[0]


def test_clipping_bounds_the_step() -> None:
    free, clipped = (trainer(epochs=1, clip_norm=limit) for limit in (None, 1e-6))
    start = free.methods[0].layer.weight.detach().clone()
    free.run()
    clipped.run()
    # Adam divides by the gradient's size, so only the relative weight of its epsilon shows: steps are much smaller.
    assert (clipped.methods[0].layer.weight - start).norm() < 0.9 * (free.methods[0].layer.weight - start).norm()


def test_more_than_one_training_batch_size_is_one_step() -> None:
    made = trainer(batch_size=100_000)
    assert (made.batch_size, made.steps) == (len(made.parts["train"]), 1)


def test_missing_training_modalities_are_hidden_and_the_same_for_all() -> None:
    run(method=SPY, missing_rate=0.5)
    shares = torch.cat([batch.available for batch in SPIED]).float().mean(0)
    assert ((shares > 0.5) & (shares < 0.8)).all()
    for batch in SPIED:
        assert (batch.inputs["upper"][~batch.available[:, 0]] == 0).all()
        assert batch.available.any(dim=1).all()


def test_few_labels_are_told() -> None:
    assert trainer(ratio=0.2).replicas[0].warning is None
    told = run(ratio=0.001).warning
    assert told is not None
    assert "less than one label for 10 of 10 classes" in told


def test_gradients_and_pseudo_labels_are_watched() -> None:
    row = run(method="robult").curves[-1]
    assert {"gradient/f", "gradient/g0", "diagnose/u_variance", "diagnose/pseudo_label_accuracy"} <= set(row)
    assert 0 <= row["diagnose/pseudo_label_accuracy"] <= 1
    assert "diagnose/pseudo_label_accuracy" not in run(method="gmc").curves[-1]


# ---- what a GPU would wait for --------------------------------------------------------------------------------------


class HostWaits(TorchDispatchMode):
    """Collects the operations at which a GPU's host waits: values read back, sizes that depend on values, uploads."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.NAMES or name.startswith("unique") or by_mask:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(
    "method", [n for n in METHODS.builtin if METHODS.get(n).stackable and METHODS.get(n).iterative]
)
def test_the_host_waits_for_nothing_inside_an_epoch(method: str, seeds: int) -> None:
    sizes = "n_train: 64, n_valid: 8, n_test: 8, n_modalities: 2, uniqueness: 1, redundancy: 1, synergy: 0"
    small = f"{{synthetic: {{{sizes}}}}}"
    asked = [training(method=method, dataset=small, seed=seed, batch_size=16, ratio=1.0) for seed in range(seeds)]
    made = Trainer(asked, data_of(asked[0]))
    made._enter(made.methods[0].stages()[0])
    waits = HostWaits()
    real = made.models.step, made._batch

    def watched(call: Any) -> Any:
        def under(*args: Any) -> Any:
            with waits:
                return call(*args)

        return under

    made.models.step, made._batch = map(watched, real)  # type: ignore[method-assign, assignment]
    made._train_epoch(0, (0.0, 1.0))
    assert waits.found == []


def test_what_the_host_would_wait_for_is_noticed() -> None:
    x = torch.arange(3.0)
    for call in (lambda: float(x.sum()), lambda: bool(x[1] > 0), lambda: x[x > 1], lambda: torch.tensor([1.0])):
        with HostWaits() as waits:
            call()
        assert waits.found


# ---- stages ---------------------------------------------------------------------------------------------------------


class Staged(Unimodal):
    """A teacher for half of the epochs, the rest of the networks for the other half."""

    seen: ClassVar[list[tuple[str, float, bool]]] = []

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("teacher", 0.5, ("f0", "g0", "c0")), Stage("students", 0.5, ("f", "g", "c")))

    def enter(self, train: Batch) -> None:
        self.seen.append((f"enter {self.stage}", float(len(train.target)), self.training))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.seen.append((self.stage, float(batch.progress[0]), self.training))
        return super().loss(batch)


def test_stages_train_their_own_parameters_one_after_the_other() -> None:
    made = trainer(method="tests.bench.test_trainer:Staged", epochs=4)
    Staged.seen.clear()
    parameters = dict(made.methods[0].named_parameters())
    states = [{name: p.detach().clone() for name, p in parameters.items()}]
    (result,) = made.run(lambda *_: states.append({name: p.detach().clone() for name, p in parameters.items()}))
    assert isinstance(result, Result)

    def moved(before: int, after: int) -> set[str]:
        return {name.split(".")[0] for name in states[0] if not torch.equal(states[before][name], states[after][name])}

    assert moved(0, 2) == {"f0", "g0", "c0"}
    assert moved(2, 4) == {"f", "g", "c"}
    assert result.best_epoch in (3, 4)  # before, half of the method has not been trained
    steps = made.steps
    names = [name for name, _, _ in Staged.seen]
    assert names == ["enter teacher", *["teacher"] * 2 * steps, "enter students", *["students"] * 2 * steps]
    progress = [share for name, share, _ in Staged.seen if name == "students"]
    assert progress == pytest.approx([k / (2 * steps) for k in range(2 * steps)])


@pytest.mark.parametrize(
    ("epochs", "shares", "expected"), [(10, (0.5, 0.5), [5, 5]), (3, (0.9, 0.05, 0.05), [1, 1, 1])]
)
def test_every_stage_gets_an_epoch(epochs: int, shares: tuple[float, ...], expected: list[int]) -> None:
    method = SimpleNamespace(name="m", stages=lambda: tuple(Stage(str(i), share) for i, share in enumerate(shares)))
    assert [count for _, count in stage_epochs(method, epochs)] == expected  # type: ignore[arg-type]


def test_more_stages_than_epochs_is_told() -> None:
    method = SimpleNamespace(name="m", stages=lambda: (Stage("teacher", 0.5), Stage("student", 0.5)))
    with pytest.raises(TrainingFailed, match=r"m trains in 2 stages \(teacher, student\).*train.epochs is 1"):
        stage_epochs(method, 1)  # type: ignore[arg-type]


# ---- corruption -----------------------------------------------------------------------------------------------------


def test_corrupted_cells_are_tested_on_the_corrupted_test_split() -> None:
    asked = replace(training(method="unimodal"), conditions=("upper+lower", "upper+lower@mask(upper)=1"))
    data = data_of(asked)
    cells = train(asked, data).cells
    zeroed = replace(
        data.parts["test"], inputs=data.parts["test"].inputs | {"upper": 0 * data.parts["test"].inputs["upper"]}
    )
    alone = replace(asked, conditions=("upper+lower",))
    expected = train(alone, replace(data, parts=data.parts | {"test": zeroed})).cells
    assert cells["upper+lower@mask(upper)=1"] == expected["upper+lower"]
    assert cells["upper+lower"] != expected["upper+lower"]


# ---- saved arrays ---------------------------------------------------------------------------------------------------


def test_fusion_weights_are_means_over_the_test_split_under_each_condition() -> None:
    asked = replace(training(method="raml"), conditions=("upper", "upper+lower", "upper+lower@mask(upper)=1"))
    asked = replace(asked, save=Save(("weights",)))
    data = data_of(asked)
    made = Trainer([asked], data)
    (result,) = made.run()
    assert isinstance(result, Result)
    test = data.parts["test"]
    batch = make_batch({name: torch.as_tensor(x) for name, x in test.inputs.items()}, torch.as_tensor(test.target))
    with torch.no_grad():
        expected = made.methods[0].fusion_weights(batch)["weight"].mean(1).numpy()
    for i, name in enumerate(("upper", "lower")):
        np.testing.assert_allclose(result.arrays[f"weight/upper+lower/{name}"], expected[i], atol=1e-5)
    both = sum(result.arrays[f"weight/upper+lower@mask(upper)=1/{name}"] for name in ("upper", "lower"))
    np.testing.assert_allclose(both, 1, atol=1e-5)
    np.testing.assert_allclose(result.arrays["weight/upper/upper"], 1, atol=1e-5)
    assert not result.arrays["weight/upper/lower"].any()
    assert not any(name.startswith("weight") for name in run_saving("gmc").arrays)


def run_saving(method: str) -> Result:
    asked = replace(training(method=method), save=Save(("weights",)))
    return train(asked, data_of(asked))
