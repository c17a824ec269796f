"""From grid to trainings: which, in what order, with what identity; what is impossible, and what it costs to plan."""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.grid import plan as planning
from bench.grid.file import load_grid, parse_grid
from bench.grid.grid import Grid
from bench.grid.plan import Plan, SummaryRow, describe, make_plan, subsets_of
from bench.grid.problems import GridError
from datasets.base import all_subsets
from datasets.catalog import DATASETS
from datasets.registry import Entry
from methods.registry import METHODS
from tests.bench.grid_slips import FAKES


@pytest.fixture(scope="module", autouse=True)
def _fakes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, cls in {"fake": "Fake", "plain": "Plain"}.items():
            patch.setitem(METHODS.builtin, name, Entry(f"{FAKES}:{cls}", "made up"))
        for name in ("views", "letters", "absent", "broken"):
            patch.setitem(DATASETS.builtin, name, Entry(f"{FAKES}:{name.title()}", "made up"))
        yield


def plan_of(text: str) -> Plan:
    return make_plan(parse_grid(dedent(text)))


def refusal_of(text: str) -> list[str]:
    grid = parse_grid(dedent(text))
    with pytest.raises(GridError) as caught:
        make_plan(grid)
    assert caught.value.exit_code == 2
    return str(caught.value).split("\n")


TWO_BY_TWO = """
    methods: [plain, fake: {tau: [0.1, 0.2]}]
    datasets: [letters, views]
    label_ratios: [0.1, 1.0]
    modalities: all
    seeds: [7, 3]
    """


# ---- which trainings ------------------------------------------------------------------------------------------


def test_a_plan_is_the_whole_product_once() -> None:
    plan = plan_of(TWO_BY_TWO)
    found = {(t.method.label, t.dataset.label, t.label_ratio, t.seed) for t in plan.trainings}
    methods = ("plain", "fake[tau=0.1]", "fake[tau=0.2]")
    assert found == {(m, d, r, s) for m in methods for d in ("letters", "views") for r in (0.1, 1.0) for s in (7, 3)}
    assert len(plan.trainings) == len({t.id for t in plan.trainings}) == 24
    assert plan.n_cells == sum(len(t.cells) for t in plan.trainings) == 24 * 3
    assert plan.trainings[0].conditions == ("text", "audio", "text+audio")
    assert (plan.skipped, plan.swept_settings) == ([], ())


def test_a_first_comparison_comes_early() -> None:
    plan = plan_of(TWO_BY_TWO)
    assert [t.seed for t in plan.trainings] == [7] * 12 + [3] * 12, "seeds in the file's order"
    first = plan.trainings[:6]
    assert {t.label_ratio for t in first} == {0.1}
    assert len({(t.method.label, t.dataset.label) for t in first}) == 6


def test_a_plan_is_the_same_in_another_process() -> None:
    code = "from bench.grid.file import load_grid; from bench.grid.plan import make_plan; " + (
        "print('\\n'.join(t.id for t in make_plan(load_grid('quickstart')).trainings))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [t.id for t in make_plan(load_grid("quickstart")).trainings]


def test_the_quickstart_is_four_methods_on_two_data_sets() -> None:
    plan = make_plan(load_grid("quickstart"))
    assert len(plan.trainings) == 4 * 2 * 2 * 3
    assert plan.n_cells == 4 * 2 * 3 * (3 + 7), "two modalities make 3 subsets, three make 7"
    assert (plan.skipped, plan.warnings) == ([], [])


def test_settings_sweep_and_differ_by_data_set() -> None:
    plan = plan_of(
        """
        methods: [plain]
        datasets: [letters, views]
        seeds: 1
        train: {epochs: [5, 6], lr: 0.01, datasets: {views: {epochs: 9}}}
        """
    )
    assert [(t.dataset.label, t.settings.epochs, t.settings.lr) for t in plan.trainings] == [
        ("letters", 5, 0.01),
        ("letters", 6, 0.01),
        ("views", 9, 0.01),
    ]
    assert plan.swept_settings == ("epochs",)


def test_trainings_travel_to_workers() -> None:
    training = plan_of(TWO_BY_TWO).trainings[-1]
    assert pickle.loads(pickle.dumps(training)) == training


# ---- identity -------------------------------------------------------------------------------------------------


def ids(text: str) -> list[str]:
    return [training.id for training in plan_of(text).trainings]


BASE = """
    name: a
    methods: [fake: {tau: 0.3}]
    datasets: [views]
    label_ratios: 0.5
    seeds: [1]
    train: {epochs: 5}
    """


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: a", "name: b\n    description: other words"),
        ("{tau: 0.3}", "{label: renamed}"),
        ("fake: {tau: 0.3}", f"'{FAKES}:Fake'"),
        ("[views]", "[views: {comment: without effect on the data, label: v}]"),
        ("label_ratios: 0.5", "label_ratios: [5.0e-1]\n    modalities: full\n    checkpoint: best"),
        ("train: {epochs: 5}", "train: {epochs: 9, lr: 0.001, datasets: {views: {epochs: 5}}}"),
        ("seeds: [1]", "executor: {slots: 2}\n    tracking: {uri: 'http://elsewhere'}\n    seeds: [1]"),
    ],
)
def test_names_and_places_do_not_change_an_id(old: str, new: str) -> None:
    assert old in BASE
    assert ids(BASE.replace(old, new)) == ids(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tau: 0.3", "tau: 0.31"),
        ("tau: 0.3", "variant: no_rec"),
        ("fake: {tau: 0.3}", "plain"),
        ("[views]", "[letters]"),
        ("[views]", "[views: {noise: 1}]"),
        ("[views]", "[views: {task: multiclass, views: 3}]"),
        ("0.5", "0.25"),
        ("[1]", "[2]"),
        ("epochs: 5", "epochs: 6"),
        ("epochs: 5", "epochs: 5, label_sampler: stratified"),
    ],
)
def test_whatever_determines_a_result_changes_its_id(old: str, new: str) -> None:
    assert old in BASE
    assert ids(BASE.replace(old, new, 1) if old != "0.5" else BASE.replace(old, new)) != ids(BASE)


def test_a_new_protocol_makes_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids(BASE)
    monkeypatch.setattr(planning, "PROTOCOL", planning.PROTOCOL + 1)
    assert ids(BASE) != before


def test_ids_are_16_hex_digits_and_cells_extend_them() -> None:
    (training,) = plan_of(BASE).trainings
    assert len(training.id) == 16
    int(training.id, 16)
    assert training.cells == {subset: f"{training.id}-{subset}" for subset in ("v1", "v2", "v1+v2")}
    assert training.cell_id("v1+v2") == training.cells["v1+v2"]


# ---- modality subsets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "subsets"),
    [
        (["all"], ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]),
        (["single"], ["a", "b", "c"]),
        (["full"], ["a+b+c"]),
        (["full", "single"], ["a", "b", "c", "a+b+c"]),
        (["c+a", "b"], ["b", "a+c"]),
        (["all", "c+b+a", "a"], ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]),
    ],
)
def test_subsets_are_written_in_the_order_of_the_data_set(requests: list[str], subsets: list[str]) -> None:
    assert subsets_of(requests, {"a": (1,), "b": (1,), "c": (1,)}) == (tuple(subsets), [])


def test_a_request_a_data_set_cannot_meet_has_a_reason() -> None:
    subsets, lacking = subsets_of(["a", "x", "a+x+y"], {"a": (1,), "b": (1,)})
    assert subsets == ("a",)
    assert lacking == ["has no modality 'x'", "has no modality 'x' and 'y' for 'a+x+y'"]


@given(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True), st.data())
def test_subsets_of_any_requests_are_among_all_subsets_in_their_order(names: list[str], data: st.DataObject) -> None:
    every = [list(part) for size in range(1, len(names) + 1) for part in combinations(names, size)]
    wanted = data.draw(st.lists(st.sampled_from(every).flatmap(st.permutations).map("+".join), min_size=1))
    subsets, lacking = subsets_of(wanted, dict.fromkeys(names, (1,)))
    assert not lacking
    assert {frozenset(subset.split("+")) for subset in subsets} == {frozenset(subset.split("+")) for subset in wanted}
    order = all_subsets(tuple(names))
    assert [order.index(subset) for subset in subsets] == sorted(order.index(subset) for subset in subsets)
    assert subsets_of(["all"], dict.fromkeys(names, (1,)))[0] == tuple(order)


# ---- what is impossible ---------------------------------------------------------------------------------------


def test_impossible_combinations_are_skipped_with_the_reason() -> None:
    plan = plan_of(
        """
        methods: [fake, plain]
        datasets: [letters, views: {task: regression}]
        label_ratios: [0.5, 1]
        modalities: [full, v1, text+audio]
        seeds: 3
        """
    )
    assert {(t.method.label, t.dataset.label): t.conditions for t in plan.trainings} == {
        ("fake", "letters"): ("text+audio",),
        ("plain", "letters"): ("text+audio",),
        ("plain", "views[task=regression]"): ("v1", "v1+v2"),
    }
    assert [(s.method, s.dataset, s.reason, s.n_trainings, s.n_cells) for s in plan.skipped] == [
        ("fake", "letters", "has no modality 'v1'", 0, 6),
        ("plain", "letters", "has no modality 'v1'", 0, 6),
        ("fake", "views[task=regression]", "it needs classes, this is a regression", 6, 12),
        ("plain", "views[task=regression]", "has no modality 'text' and 'audio' for 'text+audio'", 0, 6),
    ]


def test_a_data_set_without_any_subset_asked_for_is_skipped_whole() -> None:
    plan = plan_of("methods: [plain]\ndatasets: [letters, views]\nmodalities: [v1, v2]\nseeds: 2\n")
    assert {t.dataset.label for t in plan.trainings} == {"views"}
    assert [(s.dataset, s.reason, s.n_trainings, s.n_cells) for s in plan.skipped] == [
        ("letters", "has no modality 'v1'", 2, 2),
        ("letters", "has no modality 'v2'", 0, 2),
    ]


def test_nothing_left_is_an_error_that_says_why() -> None:
    assert refusal_of("methods: [fake]\ndatasets: [views: {task: regression}]") == [
        "grid.yaml: nothing is left to train (fake on views[task=regression]: it needs classes, this is a regression)"
    ]


def test_data_that_is_absent_or_broken_is_told_with_unknown_modalities() -> None:
    assert refusal_of("methods: [plain]\ndatasets:\n- letters\n- absent: {folder: x}\n- broken\nmodalities: tekst") == [
        "grid.yaml:4: datasets[1]: data set 'absent' is not prepared. "
        "Prepare it with: bench data prepare absent --from FILE",
        "grid.yaml:5: datasets[2]: data set 'broken' cannot be described: ZeroDivisionError: division by zero",
    ], "tekst may be a modality of a data set that could not be read"
    assert refusal_of("methods: [plain]\ndatasets: [letters, views]\nmodalities:\n- full\n- tekst+audio\n- vv") == [
        "grid.yaml:5: modalities[1]: unknown modality 'tekst'. Did you mean 'text'? "
        "The data sets here have: text, audio, v1, v2",
        "grid.yaml:6: modalities[2]: unknown modality 'vv'. The data sets here have: text, audio, v1, v2",
    ]


def test_equal_data_under_two_names_is_refused() -> None:
    assert refusal_of("methods: [plain]\ndatasets:\n- views\n- views: {comment: same}") == [
        "grid.yaml:4: datasets[1]: 'views[comment=same]' holds the same data as 'views' (datasets[0]): remove one"
    ]


def test_a_method_that_fails_to_answer_is_told() -> None:
    assert refusal_of(f"methods: ['{FAKES}:Undecided']\ndatasets: [letters]") == [
        "grid.yaml:1: methods[0]: 'Undecided' cannot say whether it takes 'letters': KeyError: 'oops'"
    ]


def test_grids_too_large_are_refused_before_they_are_multiplied_out() -> None:
    many = ", ".join(map(str, range(1, 101)))
    sweep = f"{{kappa: [{many}], depth: [{many}]}}"
    assert refusal_of(f"methods: [fake: {sweep}]\ndatasets: [views: {{noise: [{many}]}}]\nseeds: 100000") == [
        "grid.yaml: 100,000,000,000 trainings; a grid may ask for 1,000,000: split it"
    ]
    assert refusal_of("methods: [plain]\ndatasets: [views: {views: 12}]\nseeds: 2000") == [
        "grid.yaml: 8,190,000 cells; a grid may ask for 5,000,000: split it"
    ]
    assert refusal_of("methods: [plain]\ndatasets: [views: {views: 40}]\nmodalities: [single, all]") == [
        "grid.yaml:3: modalities[1]: 'all' of the 40 modalities of 'views[views=40]' is 2^40 - 1 subsets: "
        "name those you want"
    ]


def test_a_batch_larger_than_the_training_split_is_a_warning() -> None:
    plan = plan_of("methods: [plain, fake]\ndatasets: [letters, views]\ntrain: {batch_size: 50}")
    assert plan.warnings == ["views: batch_size 50 is more than its 30 training samples: an epoch is one step"]


# ---- what is left, in numbers ---------------------------------------------------------------------------------


def test_remaining_keeps_only_cells_without_results() -> None:
    plan = plan_of("methods: [plain]\ndatasets: [letters]\nseeds: 3")
    first, second, third = plan.trainings
    finished = {*first.cells.values(), second.cell_id("audio")}
    assert plan.remaining(finished) == [replace(second, conditions=("text", "text+audio")), third]
    assert plan.remaining(frozenset()) == plan.trainings


def test_a_summary_counts_by_method_and_data_set() -> None:
    plan = plan_of(
        "methods: [fake, plain]\ndatasets: [letters, views: {task: regression}]\nmodalities: [single, v1]\nseeds: 2"
    )
    fake, plain = plan.trainings[:2]
    finished = {*fake.cells.values(), plain.cell_id("text")}
    summary = describe(plan, finished)
    lacks = ("has no modality 'v1'",)
    refuses = ("it needs classes, this is a regression",)
    assert summary.rows == [
        SummaryRow("fake", "letters", 2, 4, 1, 2, 0, 2, lacks),
        SummaryRow("plain", "letters", 2, 4, 0, 1, 0, 2, lacks),
        SummaryRow("fake", "views[task=regression]", 0, 0, 0, 0, 2, 4, refuses),
        SummaryRow("plain", "views[task=regression]", 2, 4, 0, 0, 0, 0, ()),
    ]
    assert summary.total("trainings") == len(plan.trainings)
    told = json.loads(json.dumps(summary.to_json()))
    assert {key: value for key, value in told.items() if key != "rows"} == {
        "name": "grid", "trainings": 6, "cells": 12, "trainings_done": 1, "cells_done": 3, "trainings_skipped": 2,
        "cells_skipped": 8, "warnings": plan.warnings,
    }  # fmt: skip
    assert told["rows"][2]["reasons"] == list(refuses)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["fake", "plain", "fake: {tau: [1, 2]}"]), min_size=1, max_size=2, unique=True),
    st.lists(st.sampled_from(["letters", "views", "views: {views: 3}"]), min_size=1, unique=True),
    st.lists(st.sampled_from([0.1, 0.5, 1.0]), min_size=1, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    st.data(),
)
def test_done_and_remaining_make_up_the_plan(
    methods: list[str], datasets: list[str], ratios: list[float], seeds: list[int], data: st.DataObject
) -> None:
    grid: Grid = parse_grid(
        f"methods: [{', '.join(methods)}]\ndatasets: [{', '.join(datasets)}]\nlabel_ratios: {ratios}\nseeds: {seeds}"
    )
    plan = make_plan(grid)
    cells = [cell for training in plan.trainings for cell in training.cells.values()]
    assert len(set(cells)) == len(cells) == plan.n_cells
    finished = set(data.draw(st.lists(st.sampled_from(cells))))
    summary, left = describe(plan, finished), plan.remaining(finished)
    assert summary.total("cells_done") == len(finished)
    assert sum(len(training.conditions) for training in left) == plan.n_cells - len(finished)
    assert summary.total("trainings_done") == len(plan.trainings) - len(left)


# ---- cost -----------------------------------------------------------------------------------------------------

MEASURE = """
import resource, time
start = time.perf_counter()
from bench.grid.file import parse_grid
from bench.grid.plan import describe, make_plan
imported = time.perf_counter()
plan = make_plan(parse_grid({text!r}))
planned = time.perf_counter()
describe(plan, frozenset())
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(len(plan.trainings), plan.n_cells, imported - start, planned - imported, done - planned, peak)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "seeds", "modalities", "n_trainings"),
    [("100,000 cells", 200, "all", 20_000), ("100,000 trainings", 1000, "full", 100_000)],
)
def test_cost_of_planning(case: str, seeds: int, modalities: str, n_trainings: int) -> None:
    """10 configurations of Robult, digits and synthetic, 5 label ratios; prints seconds and MiB (see with -rP)."""
    taus = ", ".join(f"{index / 10:g}" for index in range(1, 11))
    text = (
        f"methods: [robult: {{tau: [{taus}]}}]\ndatasets: [digits, synthetic]\nlabel_ratios: [0.05, 0.1, 0.2, 0.5, 1]\n"
        f"modalities: {modalities}\nseeds: {seeds}\n"
    )
    run = subprocess.run([sys.executable, "-c", MEASURE.format(text=text)], capture_output=True, text=True, check=True)
    trainings, cells, imports, planned, counted, peak = map(float, run.stdout.split())
    assert (trainings, cells) == (n_trainings, 100_000)
    print(
        f"{case}: imports {imports:.2f} s, read and plan {planned:.2f} s, summary {counted:.2f} s, peak {peak:.0f} MiB"
    )


def test_a_missing_rate_is_a_number_or_goes_by_modality_and_is_part_of_the_identity() -> None:
    text = "methods: [constant]\ndatasets: [digits]\nseeds: 1\ntrain: {{missing_rate: {}}}\n"
    plans = [make_plan(parse_grid(text.format(rate))) for rate in ("0.0", "0.3", "{upper: 0.3}", "[0.0, 0.3]")]
    ids = [[training.id for training in plan.trainings] for plan in plans]
    assert len({*ids[0], *ids[1], *ids[2]}) == 3
    assert ids[3] == [*ids[0], *ids[1]]
    assert plans[3].swept_settings == ("missing_rate",)


def test_a_missing_rate_for_an_unknown_modality_is_refused() -> None:
    text = "methods: [constant]\ndatasets: [digits]\ntrain: {missing_rate: {uper: 0.3}}\n"
    with pytest.raises(GridError, match=r"unknown modality 'uper'\. Did you mean 'upper'\?"):
        make_plan(parse_grid(text))


# ---- corruptions ----------------------------------------------------------------------------------------------------


def test_a_corruption_is_tested_on_the_subsets_that_hold_what_it_changes() -> None:
    plan = plan_of(
        """
        methods: [plain]
        datasets: [letters]
        modalities: all
        corruptions:
          - gaussian: {text: [0.1, 0.2]}
          - {mask: {all: 0.5}}
        seeds: 1
        """
    )
    assert plan.trainings[0].conditions == (
        "text", "audio", "text+audio",
        "text@gaussian(text)=0.1", "text+audio@gaussian(text)=0.1",
        "text@gaussian(text)=0.2", "text+audio@gaussian(text)=0.2",
        "text+audio@mask(text)=0.5&mask(audio)=0.5",
    )  # fmt: skip
    assert plan.n_cells == 8
    assert plan.trainings[0].id == plan_of("methods: [plain]\ndatasets: [letters]\nseeds: 1\n").trainings[0].id


def test_a_corruption_nothing_can_be_tested_under_is_skipped_with_the_reason() -> None:
    plan = plan_of(
        """
        methods: [plain]
        datasets: [letters, views]
        modalities: single
        corruptions: [{mask: {text: 0.1}}, {swap: {all: 0.1}}]
        seeds: 1
        """
    )
    assert [(s.dataset, s.reason, s.n_trainings) for s in plan.skipped] == [
        ("letters", "no subset that is tested holds what 'swap(text)=0.1&swap(audio)=0.1' changes", 0),
        ("views", "has no modality 'text' for 'mask(text)=0.1'", 0),
        ("views", "no subset that is tested holds what 'swap(v1)=0.1&swap(v2)=0.1' changes", 0),
    ]


def test_corrupting_an_unknown_modality_is_a_problem() -> None:
    with pytest.raises(GridError, match=r"corruptions: unknown modality 'txet'. Did you mean 'text'\?"):
        plan_of("methods: [plain]\ndatasets: [letters]\ncorruptions: [{mask: {txet: 0.1}}]\n")
