"""What trainings cost, which stack comes next, and a run without its trainings."""

import csv
import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.show_simulation import print_simulation
from bench.grid.file import parse_grid
from bench.grid.plan import DatasetChoice, Training, make_plan
from bench.scheduling.cost_model import CostModel, Measured, device_kind, shape_of, step_flops
from bench.scheduling.schedule import Schedule
from bench.scheduling.simulate import Machine, Simulated, Simulation, parse_machine, simulate
from datasets.base import DataConfig, DataSpec
from datasets.errors import UserError
from datasets.tasks import MultiClass
from tests.bench.run_tools import bench, query, write_grid

TIMINGS = Path(__file__).with_name("timings.csv")
"""Seconds of 315 real trainings: eighteen methods, two data sets, three label ratios, three seeds, on two CPU slots of
a machine that was doing other things as well."""


def trainings(text: str) -> list[Training]:
    return make_plan(parse_grid(text)).trainings


GMC = trainings("methods: [gmc]\ndatasets: [digits]\nlabel_ratios: [1.0]\nseeds: 1\n")[0]


# ---- what trainings cost ----------------------------------------------------------------------------------


def handwritten() -> DatasetChoice:
    """Six views with the shapes of `handwritten`, which need not be prepared here."""
    widths = {"pix": 240, "fou": 76, "fac": 216, "zer": 47, "kar": 64, "mor": 6}
    shapes = {name: (width,) for name, width in widths.items()}
    sizes = {"train": 1280, "valid": 320, "test": 400}
    spec = DataSpec("handwritten", shapes, MultiClass(n_classes=10), sizes, "shapes")  # type: ignore[arg-type]
    return DatasetChoice("digits", "handwritten", DataConfig(), spec)


@pytest.fixture(scope="module")
def recorded() -> list[tuple[Training, float]]:
    """The recorded trainings with their seconds."""
    with TIMINGS.open() as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["method"] for row in rows})
    examples = {t.method.label: t for t in trainings(f"methods: {names}\ndatasets: [digits]\nseeds: 1\n")}
    settings = {
        row["dataset"]: GMC.settings.model_copy(
            update={"epochs": int(row["epochs"]), "batch_size": int(row["batch_size"])}
        )
        for row in rows
    }
    places = {"digits": GMC.dataset, "handwritten": handwritten()}
    methods = {name: training.method for name, training in examples.items()}
    return [
        (
            replace(
                GMC, id=f"{i:016x}", method=methods[row["method"]], dataset=places[row["dataset"]],
                settings=settings[row["dataset"]], label_ratio=float(row["label_ratio"]), seed=int(row["seed"]),
            ),
            float(row["seconds"]),
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip


def error(costs: CostModel, seen: Sequence[tuple[Training, float]]) -> float:
    """Median factor by which predictions are off."""
    return math.exp(statistics.median(abs(math.log(costs.seconds(t, "cpu") / s)) for t, s in seen))


def test_one_seed_tells_what_the_others_take(recorded: list[tuple[Training, float]]) -> None:
    prior, costs = CostModel(), CostModel()
    for training, seconds in recorded:
        if training.seed == 0:
            costs.learn(training, "cpu", seconds)
    held_out = [(training, seconds) for training, seconds in recorded if training.seed > 0]
    assert error(costs, held_out) < 1.35, "the machine was busy: equal trainings differ by as much"
    assert error(costs, held_out) < 0.6 * error(prior, held_out)


def test_a_kind_never_seen_is_inferred_from_its_method_and_its_data(recorded: list[tuple[Training, float]]) -> None:
    """Each method on each data set is predicted from all the others."""
    kinds = {(t.method.label, t.dataset.label) for t, _ in recorded}
    prior, learned, blind = CostModel(), [], []
    for kind in sorted(kinds):
        costs = CostModel()
        for training, seconds in recorded:
            if (training.method.label, training.dataset.label) != kind:
                costs.learn(training, "cpu", seconds)
        held_out = [(t, s) for t, s in recorded if (t.method.label, t.dataset.label) == kind]
        learned.append(math.log(error(costs, held_out)))
        blind.append(math.log(error(prior, held_out)))
    assert statistics.mean(learned) < 0.75 * statistics.mean(blind)


@pytest.mark.slow
def test_counted_arithmetic_improves_the_guess(recorded: list[tuple[Training, float]]) -> None:
    prior, counted = CostModel(), CostModel()
    kinds = {shape_of(counted.kind(t)): counted.kind(t) for t, _ in recorded}
    counted.counted = {shape: flops for shape, kind in kinds.items() if (flops := step_flops(kind))}
    assert len(counted.counted) == len(kinds), "every method of the suite can be counted"
    spread = [
        statistics.stdev(math.log(model.seconds(t, "cpu") / s) for t, s in recorded) for model in (counted, prior)
    ]
    assert spread[0] < 0.93 * spread[1]


def test_a_training_that_was_held_up_does_little_harm() -> None:
    costs = CostModel()
    for seconds in (10.0, 11.0, 9.0, 10.0, 900.0):
        costs.learn(GMC, "cpu", seconds)
    assert 10 < costs.seconds(GMC, "cpu") < 27  # the mean is 188


def test_devices_are_learned_apart_and_nonsense_is_not_learned() -> None:
    costs = CostModel()
    before = costs.seconds(GMC, "cuda:0")
    costs.learn(GMC, "cpu", 1000.0)
    costs.learn(GMC, "cuda:1", float("nan"))
    costs.learn(GMC, "cuda:1", 0.0)
    assert costs.seconds(GMC, "cuda:0") == before
    assert not costs.knows(GMC, "cuda:0")
    assert costs.knows(GMC, "cpu")
    assert device_kind("cuda:3") == "cuda"


def test_what_a_further_training_adds_is_learned_from_stacks_of_two_sizes() -> None:
    """A stack of K takes 2 (1 + 0.2 (K - 1)) seconds: the share is found, and so are sizes in between."""
    costs = CostModel()
    for _ in range(30):
        for size in (2, 16):
            costs.learn(GMC, "cuda:0", 2 * (1 + 0.2 * (size - 1)), size)
    ratio = costs.seconds(GMC, "cuda", 16) / costs.seconds(GMC, "cuda", 2)
    assert abs(math.log(ratio / (4.0 / 1.2))) < 0.6 < abs(math.log((2.0 / (1 + 1 / 15)) / (4.0 / 1.2))) + 0.2
    assert costs.seconds(GMC, "cuda", 16) == pytest.approx(8.0, rel=0.35)


def test_earlier_runs_are_recalled_by_kind_or_by_method_and_data() -> None:
    grid = "methods: [gmc, unimodal]\ndatasets: [digits]\nlabel_ratios: [1.0]\nseeds: 2\n"
    gmc, unimodal = trainings(grid)[0], trainings(grid)[1]
    costs, n = CostModel(), 64
    earlier = [
        Measured(gmc.id, "gmc", "digits", gmc.settings.epochs, n, 7.0, 1, "cpu"),
        Measured("another-grid", "unimodal", "digits", 2 * unimodal.settings.epochs, n, 90.0, 1, "cpu"),
        Measured("what-we-do-not-train", "robult", "digits", 40, n, 1.0, 1, "cpu"),
    ]
    assert costs.recall(earlier * 4, [gmc, unimodal]) == 8
    assert costs.seconds(gmc, "cpu") == pytest.approx(7.0, rel=0.3)
    assert costs.seconds(unimodal, "cpu") == pytest.approx(45.0, rel=0.3)  # half the epochs


# ---- schedules --------------------------------------------------------------------------------------------


class Exact(CostModel):
    """Knows what trainings take: the seconds in their method's label; a further one in a stack adds `share`."""

    share = 0.9

    def seconds(self, training: Training, device: str, stack: int = 1) -> float:
        return float(training.method.label) * (1 + (stack - 1) * self.share)


class Gpu(Exact):
    share = 1 / 15


def of_lengths(lengths: Sequence[float]) -> list[Training]:
    """Trainings that take these seconds, in this order; equal lengths are of one kind."""
    kinds = {s: replace(GMC.method, label=repr(s), key=f'["gmc", {{"length": {s}}}]') for s in set(lengths)}
    return [replace(GMC, id=f"{i:016x}", method=kinds[s]) for i, s in enumerate(lengths)]


def all_once(told: Simulation, asked: Sequence[Training]) -> bool:
    return Counter(t.id for turn in told.turns for t in turn.stack) == Counter(t.id for t in asked)


def is_possible(told: Simulation) -> bool:
    """Whether no slot does two things at a time."""
    return all(
        first.ended_s <= second.began_s + 1e-9
        for slot in range(told.n_slots)
        for first, second in zip(told.of_slot(slot), told.of_slot(slot)[1:], strict=False)
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=60), st.integers(1, 12), st.sampled_from(["cpus", "gpus"]))
def test_no_schedule_beats_the_bounds_and_none_is_worse_than_greedy(
    lengths: list[float], n_slots: int, kind: str
) -> None:
    """Graham (1969): without idling, at most work / slots + (1 - 1 / slots) times the longest."""
    asked = of_lengths(lengths)
    told = simulate(asked, parse_machine(f"{kind}={n_slots}"), Exact(), stack=1)
    assert all_once(told, asked)
    assert is_possible(told)
    total, longest = sum(lengths), max(lengths)
    assert told.busy_s == pytest.approx(total)
    assert told.makespan_s >= max(total / n_slots, longest) - 1e-6
    assert told.makespan_s <= total / n_slots + (1 - 1 / n_slots) * longest + 1e-6


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([1.0, 3.0, 20.0]), min_size=1, max_size=120), st.integers(1, 9))
def test_the_bounds_hold_for_stacks_too(lengths: list[float], n_gpus: int) -> None:
    asked = of_lengths(lengths)
    told = simulate(asked, parse_machine(f"gpus={n_gpus}"), Gpu())
    assert all_once(told, asked)
    assert is_possible(told)
    assert told.makespan_s >= max(told.busy_s / n_gpus, told.longest_s) - 1e-6
    assert told.makespan_s <= told.busy_s / n_gpus + (1 - 1 / n_gpus) * told.longest_s + 1e-6


def test_the_plans_order_comes_first_and_what_is_long_in_time() -> None:
    """40 s at the end of the plan begin when they are an eighth of what is left, not when all else is done."""
    lengths = [1.0] * 800 + [40.0]
    told = simulate(of_lengths(lengths), parse_machine("cpus=2"), Exact())
    assert [turn.stack[0].id for turn in told.turns[:20]] == [f"{i:016x}" for i in range(20)]
    (long,) = [turn for turn in told.turns if turn.stack[0].method.label == "40.0"]
    assert long.began_s == pytest.approx(420 - 8 * 40, abs=2)
    assert told.makespan_s == pytest.approx(420, abs=1)  # in the plan's order it would be 440


def test_near_the_end_it_is_as_good_as_longest_first() -> None:
    lengths = [float(1 + (7 * i) % 13) for i in range(100)]
    told = simulate(of_lengths(lengths), parse_machine("cpus=8"), Exact())
    assert told.makespan_s <= sum(lengths) / 8 + 2
    assert told.idle < 0.02


@pytest.mark.parametrize(("n", "n_gpus"), [(100, 8), (150, 8), (16, 8), (130, 1), (7, 4)])
def test_stacks_are_equal_and_split_until_no_gpu_is_idle(n: int, n_gpus: int) -> None:
    told = simulate(of_lengths([15.0] * n), parse_machine(f"gpus={n_gpus}"), Gpu())
    sizes = [len(turn.stack) for turn in told.turns]
    assert max(sizes) <= 16
    first = sizes[:n_gpus]
    assert max(first) - min(first) <= max(1, n_gpus if n < 16 * n_gpus else 1)
    assert len(told.turns) >= min(n, n_gpus)  # none without work while there is some
    naive = [min(16, n - start) for start in range(0, n, 16)]  # as many as fit, one after the other
    ends = [0.0] * n_gpus
    for size in naive:
        ends[ends.index(min(ends))] += 15.0 * (1 + (size - 1) / 15)
    assert told.makespan_s <= max(ends) + 1e-6


def test_the_tail_is_balanced() -> None:
    """150 on eight GPUs: after a round of 15 each, the 30 that are left are spread over all of them."""
    told = simulate(of_lengths([15.0] * 150), parse_machine("gpus=8"), Gpu())
    assert told.idle < 0.05
    last = [turn for turn in told.turns if turn.began_s > 0]
    assert {turn.slot for turn in last} == set(range(8))
    assert max(len(turn.stack) for turn in last) <= 4


def test_a_number_of_trainings_in_a_stack_is_taken_as_it_is() -> None:
    told = simulate(of_lengths([1.0] * 20), parse_machine("cpus=4"), Exact(), stack=8)
    assert [len(turn.stack) for turn in told.turns] == [8, 8, 4]


def test_out_of_memory_halves_the_stack_and_is_remembered() -> None:
    schedule = Schedule(["cuda:0"], Gpu())
    schedule.add(of_lengths([1.0] * 40))
    stack = schedule.next_stack(0, 0.0)
    assert len(stack) == 14  # 40 in three
    schedule.ended(0)
    assert schedule.give_back(0, stack, out_of_memory=True)
    sizes = []
    while given := schedule.next_stack(0, 0.0):
        sizes.append(len(given))
        schedule.ended(0, 1.0)
    assert sizes[:2] == [7, 7]
    assert max(sizes) == 7
    assert sum(sizes) == 40


def test_a_stack_that_died_otherwise_is_halved_but_nothing_is_remembered() -> None:
    schedule = Schedule(["cuda:0"], Gpu())
    schedule.add(of_lengths([1.0] * 40))
    stack = schedule.next_stack(0, 0.0)
    schedule.ended(0)
    assert schedule.give_back(0, stack, out_of_memory=False)
    assert [len(schedule.next_stack(0, 0.0)) for _ in range(3)] == [7, 7, 13]


def test_a_single_training_that_failed_is_not_taken_back() -> None:
    schedule = Schedule(["cpu"], Exact())
    schedule.add(of_lengths([1.0]))
    stack = schedule.next_stack(0, 0.0)
    schedule.ended(0)
    assert not schedule.give_back(0, stack, out_of_memory=True)
    assert len(schedule) == 0


def test_what_another_scheduler_has_is_left_to_it() -> None:
    asked = of_lengths([1.0] * 6)
    schedule = Schedule(["cuda:0"], Gpu())
    schedule.add(asked)
    taken: list[Training] = []

    def take(training: Training) -> bool:
        taken.append(training)
        return training.id not in (asked[0].id, asked[3].id)

    assert [t.id for t in schedule.next_stack(0, 0.0, take)] == [asked[i].id for i in (1, 2, 4, 5)]
    assert taken == asked
    assert len(schedule) == 0


def crowded(slowdown: dict[int, float], n: int = 200) -> tuple[int, Simulation]:
    """How many workers a GPU ends with where so many at once are each that much slower, and the run."""
    machine = Machine("one GPU", ("cuda:0",) * 4)
    asked = of_lengths([10.0] * n)
    told = simulate(
        asked, machine, CostModel(), stack=1, crowd=True,
        truth=lambda stack, device, n_busy: float(stack[0].method.label) * slowdown[n_busy],
    )  # fmt: skip
    assert all_once(told, asked)
    return len({turn.slot for turn in told.turns[-20:]}), told


def test_a_gpu_gets_as_many_workers_as_pay() -> None:
    workers, told = crowded({1: 1.0, 2: 1.2, 3: 1.5, 4: 2.6})
    assert workers == 3
    assert told.makespan_s < 0.65 * 200 * 10.0  # alone: 2000 s; at three: 1000 s


def test_a_gpu_that_gains_nothing_keeps_one_worker() -> None:
    workers, told = crowded({1: 1.0, 2: 2.1, 3: 3.5, 4: 5.0})
    assert workers == 1
    assert told.makespan_s < 1.05 * 200 * 10.0  # the trial costs little


def test_few_trainings_are_no_reason_to_share() -> None:
    schedule = Schedule(["cuda:0", "cuda:1"] * 2, Gpu(), stack=1, crowd=True)
    schedule.add(of_lengths([1.0] * 4))
    assert [bool(schedule.next_stack(slot, 0.0)) for slot in range(4)] == [True, True, False, False]


def test_the_time_left_is_that_of_the_rest() -> None:
    schedule = Schedule(["cpu", "cpu"], costs := CostModel())
    assert schedule.left_s(0.0) is None
    asked = of_lengths([10.0] * 10)
    schedule.add(asked)
    for _ in range(50):
        costs.learn(asked[0], "cpu", 10.0)
    first = schedule.left_s(0.0)
    assert first == pytest.approx(50, rel=0.05)
    schedule.next_stack(0, 0.0)
    schedule.next_stack(1, 0.0)
    schedule.progress(0, 0.0, 1.0)  # loaded and begun
    schedule.progress(0, 0.5, 21.0)  # it will take twice what was expected
    left = schedule.left_s(21.0)
    assert left is not None
    assert left == pytest.approx((80 + 20 + 0.5) / 2, rel=0.1)


# ---- the command ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["gpu", "gpus=", "gpus=0", "gpus=-1", "tpus=8", "cpus=4x2", "gpus=9999", "8", ""])
def test_devices_that_make_no_sense_are_refused(words: str) -> None:
    with pytest.raises(UserError, match=r"--simulate .*(write gpus=8|from 1 to 1024 slots)"):
        parse_machine(words)


def test_devices_in_words() -> None:
    assert parse_machine("gpus=2x2").devices == ("cuda:0", "cuda:1", "cuda:0", "cuda:1")
    assert parse_machine(" cpus=3").devices == ("cpu",) * 3


GRID = """
name: order
methods: [gmc, constant]
datasets: [digits]
label_ratios: [0.05]
seeds: 2
train: {epochs: 2}
executor: {devices: cpu, slots: 1}
"""


@pytest.mark.slow
def test_a_run_follows_the_order_that_is_simulated(tmp_path: Path) -> None:
    write_grid(tmp_path, GRID)
    told = bench("plan", "grid.yaml", "--simulate", "cpus=1", "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    simulation = json.loads(told.stdout)["simulation"]
    assert simulation["slots"] == 1
    assert simulation["idle_share"] == pytest.approx(0, abs=1e-9)
    assert simulation["speed_up"] == pytest.approx(1)
    assert [stack["trainings"] for stack in simulation["stacks"]] == [1] * 4
    assert bench("run", "grid.yaml", cwd=tmp_path).returncode == 0
    rows = query(
        tmp_path,
        "SELECT method.value FROM runs JOIN tags method ON method.run_uuid = runs.run_uuid AND method.key = 'method' "
        "JOIN tags stage ON stage.run_uuid = runs.run_uuid AND stage.key = 'stage' AND stage.value = 'training' "
        "ORDER BY runs.start_time, runs.rowid",
    )
    ran = [str(method) for (method,) in rows]
    assert Counter(ran) == Counter(stack["method"] for stack in simulation["stacks"])
    assert ran[0] == simulation["stacks"][0]["method"] == "gmc"  # the longest, and of few trainings all are long
    assert ran[-1] == simulation["stacks"][-1]["method"] == "constant"


def test_the_picture_of_a_simulated_run(capsys: pytest.CaptureFixture[str]) -> None:
    asked, costs = of_lengths([10.0] * 50 + [3.0] * 10), CostModel()
    told = simulate(asked, parse_machine("gpus=2x2"), costs)
    print_simulation(Simulated(told, 530.0, costs))
    out = capsys.readouterr().out
    assert "Simulated on gpus=2x2: 4 slots" in out
    assert "Nothing of it was ever measured on a GPU" in out
    drawn = [line for line in out.splitlines() if line.lstrip().startswith("cuda:")]
    assert [line.split()[0] for line in drawn] == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert len({len(line) for line in drawn}) == 1
    costs.learn(asked[0], "cuda:0", 5.0)
    assert Simulated(told, 530.0, costs).note == ""
    whole = Simulated(told, 530.0, costs).to_json()
    assert json.loads(json.dumps(whole)) == whole
    assert sum(stack["trainings"] for stack in whole["stacks"]) == 60
