"""Reading searches: what is right gives a Search, what is wrong a sentence each, all at once."""

import pytest

from bench.grid.file import parse_grid
from bench.grid.plan import make_plan
from bench.grid.problems import GridError
from bench.search.file import load_search, parse_search
from bench.search.rounds import make_trial
from bench.search.search import Search
from bench.searches import bundled_searches
from methods.registry import METHODS
from tests.bench.search_tools import text


def problems(**changes: str) -> list[str]:
    """What is wrong with the search file once changed so."""
    with pytest.raises(GridError) as caught:
        parse_search(text(**changes))
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": "{gmc: {tauu: declared}}"}, "method 'gmc' has no hyper-parameter 'tauu'. Did you mean 'tau'?"),
        ({"space": "{gmc: {train.lrr: [1, 2]}}"}, "'train' has no setting 'lrr'. Did you mean 'lr'?"),
        ({"space": "{gmc: {tau: {low: 2, high: 0.5}}}"}, "an empty range: low 2 is not below high 0.5"),
        ({"space": "{gmc: {tau: {low: 1, high: 1}}}"}, "an empty range: low 1 is not below high 1"),
        (
            {"space": "{gmc: {train.weight_decay: {low: 0, high: 1, log: true}}}"},
            "a log range cannot begin at 0: give a low above 0, or log: false",
        ),
        ({"space": "{gmc: {tau: {low: -1}}}"}, "space.gmc.tau.low: expected a number"),
        ({"space": "{gmc: {train.lr: declared}}"}, "no search range is declared for 'train.lr'"),
        ({"space": "{gmc: {train.lr: {low: 0.1}}}"}, "'high' is missing, and no search range is declared"),
        ({"space": "{gmc: {tau: [0.1, 0.1]}}"}, "0.1 is given twice"),
        ({"space": "{gmc: {tau: {lo: 1}}}"}, "unknown key 'lo'. Did you mean 'low'?"),
        ({"space": "{gmc: {tau: {when: {latent: 64}}}}"}, "'latent' is no choice of this space"),
        ({"space": "{gmd: declared}"}, "no method of this search is called 'gmd'. Did you mean 'gmc'?"),
        (
            {"space": "{gmc: {latent: {low: 8, high: 64, log: false, step: 0.5}}}"},
            "'latent' is a whole number, and so is its step",
        ),
        ({"methods": "[gmc: {tau: 0.2}]", "space": "{gmc: {tau: declared}}"}, "'tau' is fixed under methods"),
        ({"methods": "[constant]", "space": "{}"}, "'constant' trains without epochs: there is nothing to search"),
        ({"train": "{epochs: [2, 4]}"}, "a search trains with one 'epochs'; to tune it, write 'train.epochs' under"),
        ({"objective": "{metric: accuracy}"}, "has no metric 'accuracy'"),
        ({"objective": "{split: test}"}, "a search that looks at the test split has no honest test result left"),
        ({"objective": "{split: train}"}, "an objective reads the split 'valid', got 'train'"),
        ({"objective": "{modalities: video}"}, "has no modality 'video'"),
        ({"objective": "{over_subsets: best}"}, "expected one of mean, worst, got 'best'"),
        ({"objective": "[{modalities: full}, {modalities: full}]"}, "an objective is given twice"),
        (
            {"objective": "[{modalities: full}, {modalities: single}]", "pruner": "median"},
            "the pruner 'median' compares one number, but there are 2 objectives",
        ),
        ({"datasets": "[digits, synthetic: {task: regression}]"}, "different primary metrics (acc, mae)"),
        ({"sampler": "tpee"}, "sampler.kind: expected one of tpe, gp, cmaes, random, grid, qmc, got 'tpee'"),
        ({"pruner": "{kind: hyperbant}"}, "Did you mean 'hyperband'?"),
        ({"budget": "{trials: 0}"}, "budget.trials: expected a number of at least 1, got 0"),
        ({"batch": "0"}, "batch: expected a whole number from 1 to 1024, got 0"),
        ({"executor": "{kind: ray}"}, "executor.kind: the trials of a search train on this machine"),
        ({"executor": "{stack: 4}"}, "executor.stack: how many replicas train as one is a search's own 'stack'"),
        ({"executor": "{timeout_s: 60}"}, "executor.timeout_s: a trial has no time limit of its own"),
        ({"storage": "somewhere"}, "'somewhere' is no storage: write a journal file ending in .journal, or a database"),
        ({"spaces": "{}"}, "unknown key 'spaces'. Did you mean 'space'?"),
        ({"corruptions": "[gaussian: {upper: 0.1}]"}, "unknown key 'corruptions'"),
    ],
)
def test_what_is_wrong_is_a_sentence(changes: dict[str, str], says: str) -> None:
    assert any(says in told for told in problems(**changes)), problems(**changes)


def test_all_is_told_at_once() -> None:
    told = problems(space="{gmc: {tau: {low: 2, high: 1}, nothing: declared}}", budget="{trials: 0}", batch="0")
    assert len(told) == 4


def test_conditions_that_go_in_a_circle_are_told() -> None:
    circle = "{robult: {rbf: {choices: [phi_fixed], when: {rec: cos}}, rec: {choices: [cos], when: {rbf: phi_fixed}}}}"
    assert any("go round in a circle" in told for told in problems(methods="[robult]", space=circle))


def test_unknown_searches_are_named() -> None:
    with pytest.raises(GridError, match="Did you mean 'raml-lambda'"):
        load_search("raml-lamda")
    with pytest.raises(GridError, match="no such file"):
        load_search("nowhere.yaml")


@pytest.mark.parametrize("name", list(bundled_searches()))
def test_bundled_searches_are_sound(name: str) -> None:
    search = load_search(name)
    assert search.name == name
    assert bundled_searches()[name]
    for method in search.methods:
        space = search.spaces[method.label]
        for point in space.grid()[:: max(1, len(space.grid()) // 5)] if len(space.parameters) < 4 else ():
            assert make_trial(search, method, 0, point).failure is None


def test_without_a_space_every_declared_range_is_searched() -> None:
    search = parse_search("methods: [robult]\ndatasets: [digits]")
    declared = {
        name
        for name, field in METHODS.get("robult").Config.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("search")
    }
    assert set(search.spaces["robult"].names) == declared


def test_a_declared_range_is_narrowed_and_the_others_kept() -> None:
    search = parse_search(text(methods="[robult]", space="{robult: {tau: {high: 0.5}, others: declared}}"))
    tau = search.spaces["robult"].parameters[0]
    assert (tau.low, tau.high, tau.log) == (0.1, 0.5, True)
    assert "kappa" in search.spaces["robult"].names


def test_conditions_come_before_what_depends_on_them() -> None:
    space = "{robult: {bandwidth: {when: {rbf: cos_fixed}}, rbf: declared}}"
    search = parse_search(text(methods="[robult]", space=space))
    assert search.spaces["robult"].names == ("rbf", "bandwidth")


def identities(search: Search) -> dict[str, str]:
    return search.identity(search.methods[0])


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"batch": "5"}, "batch"),
        ({"seeds": "3"}, "seeds"),
        ({"space": "{gmc: {tau: {low: 0.06, high: 2.0, log: true}}}"}, "space"),
        ({"sampler": "random"}, "sampler"),
        ({"pruner": "median"}, "pruner"),
        ({"objective": "{modalities: full}"}, "objective"),
        ({"train": "{epochs: 5, batch_size: 32}"}, "train"),
        ({"label_ratios": "[0.4]"}, "label_ratios"),
        ({"checkpoint": "best"}, "checkpoint"),
    ],
)
def test_the_identity_tells_what_differs(changes: dict[str, str], part: str) -> None:
    before, after = identities(parse_search(text())), identities(parse_search(text(**changes)))
    assert {name for name in before if before[name] != after[name]} == {part}


def test_budget_stack_and_points_are_no_part_of_the_identity() -> None:
    changed = text(budget="{trials: 99}", stack="3", space="{gmc: {tau: {low: 0.05, high: 2.0, log: true, points: 9}}}")
    assert identities(parse_search(text())) == identities(parse_search(changed))


def test_a_trial_is_what_a_grid_would_train() -> None:
    search = parse_search(text())
    trial = make_trial(search, search.methods[0], 0, {"tau": 0.25, "train.lr": 0.01})
    grid = text(methods="[gmc: {tau: 0.25}]", train="{epochs: 4, batch_size: 32, lr: 0.01}")
    kept = [line for line in grid.splitlines() if line.partition(":")[0] not in ("space", "sampler", "budget", "batch")]
    plan = make_plan(parse_grid("\n".join(kept)))
    assert [training.id for training in trial.trainings] == [training.id for training in plan.trainings]
    assert {training.conditions for training in trial.trainings} == {("m1", "m2", "m1+m2")}


def test_a_configuration_that_is_none_fails_with_a_reason() -> None:
    search = parse_search(text())
    trial = make_trial(search, search.methods[0], 3, {"tau": -1.0})
    assert trial.failure is not None
    assert "tau" in trial.failure
