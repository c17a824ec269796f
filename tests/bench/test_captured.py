"""Captured steps: the numbers of plain ones, replays where they are possible and pay, a failure that costs nothing.

On the CPU a tape stands in for CUDA graphs (`tests.bench.tape`); the last tests take real ones where there is a GPU.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.executors import worker
from bench.executors.local import LocalExecutor
from bench.grid.file import parse_grid
from bench.grid.plan import Training, make_plan
from bench.search.executor import ShareExecutor
from bench.training import captured
from bench.training.captured import TIMED, WARM_UP, Captured, CudaGraphs, Recorder
from bench.training.trainer import Result, Trainer, stage_epochs
from datasets.base import Data
from datasets.batch import Batch
from datasets.catalog import DATASETS
from methods.base import Stage
from methods.registry import METHODS
from tests.bench import odd_methods
from tests.bench.run_tools import ODD
from tests.bench.tape import Taped

SMALL = "{n_train: 64, n_valid: 16, n_test: 16, n_modalities: 2, uniqueness: 1, redundancy: 1, synergy: 0}"
BEFORE = WARM_UP + TIMED
"""Steps before the first replay."""


def trainings(method: str, **options: Any) -> list[Training]:
    ratios, seeds, executor = options.pop("ratios", "[1.0]"), options.pop("seeds", 1), options.pop("executor", "{}")
    settings = {"epochs": 2, "batch_size": 8} | options
    text = (
        f"methods: [{method}]\ndatasets: [synthetic: {SMALL}]\nlabel_ratios: {ratios}\nseeds: {seeds}\n"
        f"train: {settings}\nexecutor: {executor}\n"
    )
    return make_plan(parse_grid(text.replace("None", "null").replace("'plateau'", "plateau"))).trainings


def data_of(asked: Training) -> Data:
    return DATASETS.get(asked.dataset.name)(asked.dataset.config).load()


def trainer(asked: Sequence[Training], recorder: Recorder | None = None) -> Trainer:
    made = Trainer(list(asked), data_of(asked[0]))
    if recorder is not None:
        made.models = Captured(made.models, recorder)
    return made


def models(made: Trainer) -> Captured:
    assert isinstance(made.models, Captured)
    return made.models


def same(ours: Trainer, plain: Trainer) -> None:
    """Train both: every curve, metric and weight is equal, bit for bit."""
    for mine, theirs in zip(ours.run(), plain.run(), strict=True):
        assert isinstance(mine, Result)
        assert isinstance(theirs, Result)
        assert without_time(mine) == without_time(theirs)
        assert mine.cells == theirs.cells
    same_weights(ours, plain)
    assert all(group["capturable"] for group in models(ours).plain.optimiser.param_groups)  # CUDA graphs ask for it


def same_weights(ours: Trainer, plain: Trainer) -> None:
    for mine, theirs in zip(ours.methods, plain.methods, strict=True):
        for name, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value), name


def without_time(result: Result) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "time_ms"} for row in result.curves]


LINEAR = f"{ODD}:Linear"


class Supervised(odd_methods.Linear):
    """Stays where it is in a batch without labels."""

    needs_labels = True


class Halves(odd_methods.Linear):
    """Two stages, each of a layer of its own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.more = torch.nn.Linear(self.task.width, self.task.width)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("first", 0.5, ("layer",)), Stage("second", 0.5, ("more",)))

    def predict(self, batch: Batch) -> Tensor:
        first = super().predict(batch)
        return first if self.stage == "first" else self.more(first)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# ---- the same numbers -----------------------------------------------------------------------------------------------


def captured_is_plain(method: str, seeds: int, epochs: int = 2) -> None:
    asked, recorder = trainings(method, seeds=seeds, epochs=epochs), Taped()
    ours = trainer(asked, recorder)
    same(ours, trainer(asked))
    steps = [8 * epochs for _, epochs in stage_epochs(ours.methods[0], epochs)]
    assert (recorder.recorded, recorder.asked) == (len(steps), 4 * TIMED * len(steps))
    assert recorder.replayed == models(ours).replays == sum(steps) - BEFORE * len(steps)
    assert models(ours).share == models(ours).replays / sum(steps)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("method", ["robult", "mvae", "{augmentation: {patterns: sample}}"])
def test_captured_training_is_plain_training(method: str, seeds: int) -> None:
    """Of methods that draw noise and weigh terms by progress."""
    captured_is_plain(method, seeds)


def test_every_stage_is_recorded_and_measured_anew() -> None:
    captured_is_plain("tests.bench.test_captured:Halves", 2, epochs=4)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "method", [n for n in METHODS.builtin if METHODS.get(n).stackable and METHODS.get(n).iterative]
)
def test_captured_training_of_every_method_is_plain_training(method: str, seeds: int) -> None:
    captured_is_plain(method, seeds, epochs=8)  # MMIN's stages are two and six of them


@pytest.mark.parametrize("seeds", [1, 2])
def test_clipped_steps_and_weight_decay(seeds: int) -> None:
    asked = trainings("gmc", seeds=seeds, clip_norm=0.1, weight_decay=0.01)
    same(ours := trainer(asked, Taped()), trainer(asked))
    assert models(ours).replays


def test_mixed_precision() -> None:
    asked = trainings("gmc", seeds=2, precision="bf16")
    same(ours := trainer(asked, Taped()), trainer(asked))
    assert models(ours).replays


@pytest.mark.parametrize("ratios", ["[0.15]", "[0.15, 1.0]"])
def test_a_step_that_does_not_move_all_is_made_as_it_is(ratios: str) -> None:
    asked = trainings("tests.bench.test_captured:Supervised", ratios=ratios, epochs=4)
    same(ours := trainer(asked, Taped()), trainer(asked))
    assert 0 < models(ours).replays < 32 - BEFORE


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_new_learning_rate_is_followed(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is a number in the recording, so each new one takes another; a rate that stays takes none."""
    monkeypatch.setattr("bench.training.trainer.PATIENCE", 0)
    asked = trainings(LINEAR, seeds=seeds, ratios="[0.5]", schedule="plateau", epochs=6, lr=0.5)
    recorder = Taped()
    ours = trainer(asked, recorder)
    same(ours, trainer(asked))
    rates = [tuple(replica.curves[epoch]["lr"] for replica in ours.replicas) for epoch in range(6)]
    assert 1 < recorder.recorded <= 1 + sum(a != b for a, b in pairwise(rates))
    assert recorder.asked == 4 * TIMED


def test_the_others_go_on_when_one_is_dropped() -> None:
    asked, recorder = trainings(LINEAR, seeds=3, epochs=4), Taped()
    told = []
    for made in (trainer(asked, recorder), trainer(asked)):
        for epoch, _ in enumerate(made.epochs(), start=1):
            if epoch == 2:
                made.drop([asked[1].id], "not needed")
        told.append(made.results())
    for mine, theirs in zip(*told, strict=True):
        if isinstance(theirs, Result):
            assert isinstance(mine, Result)
            assert without_time(mine) == without_time(theirs)
        else:
            assert str(mine) == str(theirs) == "not needed"
    assert recorder.recorded == 2


def test_gradient_norms_are_those_of_the_last_step_whatever_kind_it_was() -> None:
    """A step made as it is after a replay, then a replay again: each leaves its gradients elsewhere."""
    asked = trainings(LINEAR, seeds=2)
    ours, plain = trainer(asked, Taped()), trainer(asked)
    for made in (ours, plain):
        made._enter(Stage("train"))
    for number, batch in enumerate(some_batches(plain, 20)):
        moves = np.array([True, number % 5 < 3])
        for made in (ours, plain):
            made.models.step(batch, moves)
        mine, theirs = ours.models.gradient_norms(), plain.models.gradient_norms()
        for name, norms in theirs.items():
            assert torch.equal(mine[name], norms), (number, name)
            assert (norms[1] == 0) == (not moves[1])
    assert 0 < models(ours).replays < 20 - BEFORE


def some_batches(made: Trainer, steps: int, size: int = 8) -> list[Batch]:
    index = torch.arange(steps * size).reshape(steps, 1, size) % 64
    index = index.expand(-1, len(made.replicas), -1)
    keys = torch.arange(steps * len(made.replicas) * size).reshape(index.shape)
    return [made._batch(index[step], keys[step], torch.tensor(step / steps)) for step in range(steps)]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_batch_of_another_shape_is_made_as_it_is(seeds: int) -> None:
    asked = trainings(LINEAR, seeds=seeds)
    ours, plain = trainer(asked, Taped()), trainer(asked)
    batches = some_batches(plain, 16)
    batches[12:12] = some_batches(plain, 2, size=6)
    for made in (ours, plain):
        made._enter(Stage("train"))
    for batch in batches:
        mine, theirs = (made.models.step(batch, np.ones(seeds, bool)) for made in (ours, plain))
        assert mine.keys() == theirs.keys()
        for name, term in theirs.items():
            assert torch.equal(mine[name], term)
    assert models(ours).replays == 16 - BEFORE


def test_loss_terms_of_a_step_outlive_the_next() -> None:
    made = trainer(trainings("gmc"), Taped())
    made._enter(Stage("train"))
    told = [made.models.step(batch, np.ones(1, bool)) for batch in some_batches(made, BEFORE + 3)]
    assert models(made).replays == 3
    name = next(iter(told[0]))
    assert len({float(terms[name]) for terms in told[-3:]}) == 3


def test_what_changes_outside_is_taken_over() -> None:
    """Weights that are restored and buffers that are fitted anew after a stack was recorded."""
    asked = trainings("robult: {fc: plain}", seeds=2)
    ours, plain = trainer(asked, Taped()), trainer(asked)
    for made in (ours, plain):
        made._enter(Stage("train"))
        start = [{name: x.clone() for name, x in method.state_dict().items()} for method in made.methods]
        for number, batch in enumerate(some_batches(made, 24)):
            if number == 12:
                for method, state in zip(made.methods, start, strict=True):
                    method.load_state_dict(state)
                    method.get_buffer(method.hyper_names[0]).mul_(3.0)
                made.models.refresh()
            made.models.step(batch, np.ones(2, bool))
    same_weights(ours, plain)
    assert models(ours).replays == 24 - BEFORE - WARM_UP


# ---- where it pays --------------------------------------------------------------------------------------------------


def test_steps_go_on_as_they_are_where_replays_are_slower() -> None:
    asked, recorder = trainings(LINEAR), Taped(quicker=False)
    ours = trainer(asked, recorder)
    same(ours, trainer(asked))
    assert recorder.replayed == TIMED
    assert models(ours).share == TIMED / 16


def test_the_host_waits_for_the_measurement_alone() -> None:
    counts = []
    for epochs in (2, 4):
        made = trainer(trainings(LINEAR, epochs=epochs), recorder := Taped())
        made.run()
        counts.append(recorder.asked)
    assert counts == [4 * TIMED, 4 * TIMED]


def test_the_share_of_replays_is_among_the_costs_where_capture_is_asked_for() -> None:
    asked = trainings(LINEAR)
    for recorder, expected in ((Taped(), {"captured": (16 - BEFORE) / 16}), (None, {})):
        (result,) = trainer(asked, recorder).run()
        assert isinstance(result, Result)
        assert {name: value for name, value in result.cost.items() if name == "captured"} == expected


# ---- where it fails -------------------------------------------------------------------------------------------------


class Looking(odd_methods.Linear):
    """Looks at a value in its loss, for which a GPU's host would wait."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        loss = super().loss(batch)["sup"]
        return {"sup": 2.0 * loss if loss.detach().item() > 1.0 else loss}


class Loner(odd_methods.Linear):
    """Does what no stack and no recording may: it counts its steps."""

    stackable = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.count = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.count += 1
        return {"sup": super().loss(batch)["sup"] * (1.0 + self.count % 3)}


@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_failure_to_record_costs_nothing_and_is_told_once(rehearsed: bool) -> None:
    """Noticed in the rehearsal, or, where that overlooks it, while it is recorded."""
    asked, recorder = trainings("tests.bench.test_captured:Looking"), Taped(strict=rehearsed)
    ours = trainer(asked, recorder)
    same(ours, trainer(asked))
    assert (recorder.tried, recorder.replayed, models(ours).share) == (0 if rehearsed else 1, 0, 0.0)
    (result,) = ours.results()
    assert isinstance(result, Result)
    assert result.warning == (
        "the steps of linear cannot be captured: RuntimeError: aten._local_scalar_dense.default makes the host wait"
    )


def test_what_breaks_the_rules_of_a_stack_is_not_recorded() -> None:
    asked, recorder = trainings("tests.bench.test_captured:Loner", ratios="[0.001]"), Taped()
    ours = trainer(asked, recorder)
    same(ours, trainer(asked))
    assert recorder.tried == 0
    (result,) = ours.results()
    assert isinstance(result, Result)
    assert result.warning is not None
    assert result.warning.startswith("label ratio 0.001 ")
    assert result.warning.endswith("; linear is not stackable, so its steps are not captured")


# ---- from the grid to the trainer -----------------------------------------------------------------------------------


def test_capture_is_off_unless_asked_for_and_changes_no_identity() -> None:
    def grid(executor: str) -> bool:
        return parse_grid(f"methods: [gmc]\ndatasets: [digits]\nexecutor: {executor}\n").executor.capture

    assert [grid(text) for text in ("{}", "{capture: false}", "{capture: true}")] == [False, False, True]
    assert trainings("gmc")[0].id == trainings("gmc", executor="{capture: true}")[0].id


def captures() -> tuple[bool, bool]:
    """In a worker: what it and a search in it were told."""
    from bench.search import worker as search_worker

    return worker._capture, search_worker._capture


def test_workers_are_told(tmp_path: Path) -> None:
    for executor, told in (
        (LocalExecutor(["cpu"], tmp_path), (False, False)),
        (LocalExecutor(["cpu"], tmp_path, capture=True), (True, False)),
        (ShareExecutor(["cpu"], capture=True), (True, True)),
    ):
        try:
            executor.call(0, captures, ())
            assert executor.inbox.get(timeout=60)["outcomes"] == told
        finally:
            executor.close()


@pytest.mark.parametrize("capture", [False, True])
def test_a_worker_captures_where_its_device_can(capture: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trainings(LINEAR)
    monkeypatch.setattr("bench.training.trainer.recorder_of", lambda device: Taped())
    ((outcome, _),) = worker.train(asked, [{}], data_of, "cpu", lambda event: None, capture=capture)
    assert ("captured" in outcome["cost"]) is capture


def test_a_cpu_trains_as_ever() -> None:
    asked = trainings("gmc")
    assert not isinstance(Trainer(asked, data_of(asked[0]), "cpu", capture=True).models, Captured)


# ---- on a GPU -------------------------------------------------------------------------------------------------------

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Quicker(CudaGraphs):
    """On its clock replays take half as long as steps, so that they go on whatever this machine measures."""

    clock_s = 0.0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        real = super().record(work)

        def replay() -> None:
            self.clock_s -= 0.5
            real()

        return replay

    def now(self) -> float:
        super().now()
        self.clock_s += 1.0
        return self.clock_s


def on_gpu(asked: Sequence[Training], *, capture: bool) -> tuple[list[Result], Trainer]:
    made = Trainer(list(asked), data_of(asked[0]), "cuda", capture=capture)
    results = made.run()
    assert all(isinstance(result, Result) for result in results), results
    return results, made  # type: ignore[return-value]


@gpu
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("method", ["robult", "gmc", "mvae", "unimodal", "mmin"])
def test_real_graphs_give_what_steps_give(method: str, seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "CudaGraphs", Quicker)
    asked = trainings(method, seeds=seeds, ratios="[0.5]", epochs=6, clip_norm=1.0, lr=1e-4)
    (ours, made), (plain, _) = on_gpu(asked, capture=True), on_gpu(asked, capture=False)
    assert models(made).why_not is None
    assert models(made).replays > 10
    for mine, theirs in zip(ours, plain, strict=True):
        for row, other in zip(mine.curves, theirs.curves, strict=True):
            for name in other.keys() - {"time_ms"}:
                np.testing.assert_allclose(row[name], other[name], rtol=1e-3, atol=1e-4, err_msg=name)


@gpu
@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_real_recording_that_fails_costs_nothing(rehearsed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not rehearsed:
        monkeypatch.setattr(captured, "_watch_waits", lambda mode: None)
    asked = trainings("tests.bench.test_captured:Looking")
    (ours, made), (plain, _) = on_gpu(asked, capture=True), on_gpu(asked, capture=False)
    assert models(made).why_not is not None
    assert models(made).replays == 0
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    np.testing.assert_allclose(ours[0].curves[-1]["train/loss"], plain[0].curves[-1]["train/loss"], rtol=1e-4)


@gpu
def test_the_real_clock_comes_to_a_decision() -> None:
    _, made = on_gpu(trainings("robult"), capture=True)
    assert models(made)._pays is not None
    assert models(made).replays >= TIMED
