"""What a search leaves to look at: trials as CSV, the winner as YAML, figures, and tuned against default on test."""

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.grid.plan import Training
from bench.search.display import shown
from bench.search.loop import Searcher, Tuned
from bench.search.objective import Objective
from bench.search.search import Search
from bench.search.study import importances, plots
from bench.search.winner import Pick, default, fragment, same, tuned

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Line:
    """One method in the table of tuned against default."""

    method: str
    objective: str
    trials: int
    minutes: float
    valid_default: float | None
    valid_tuned: float | None
    test_default: float | None
    test_tuned: float | None
    gains: tuple[float, ...]
    """Of each seed, tuned less default on test, its sign turned so that more is better."""

    @property
    def says(self) -> str:
        """The test result in a sentence."""
        if self.test_default is None or self.test_tuned is None:
            return f"{self.method}: no test result to compare."
        mean = statistics.fmean(self.gains)
        won = sum(gain > 0 for gain in self.gains)
        way = "better" if mean > 0 else "worse" if mean < 0 else "no different"
        much = f" by {abs(mean):.4f}" if mean else ""
        text = f"{self.method}, {self.objective}, on test: tuned is {way}{much}, "
        text += f"better on {won} of {len(self.gains)} seeds"
        if len(self.gains) > 1:
            spread = statistics.stdev(self.gains) / len(self.gains) ** 0.5
            text += f" (standard error {spread:.4f}{'' if abs(mean) > 2 * spread else ': within noise'})"
        return f"{text}."


def trials_csv(ended: Sequence[Tuned], objectives: Sequence[Objective]) -> str:
    """Every trial of every method, a row each."""
    names = list(dict.fromkeys(name for t in ended for row in t.rows for name in row.params))
    columns = ["method", "trial", "state", *(o.name for o in objectives), *names, "seconds", "stopped_after", "reason"]
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(columns)
    for one in ended:
        for row in one.rows:
            values = row.values or ("",) * len(objectives)
            extra = [row.attrs.get(key, "") for key in ("seconds", "stopped_after", "reason")]
            table.writerow([one.method.label, row.number, row.state, *values, *map(row.params.get, names), *extra])
    return out.getvalue()


def frame(search: Search, one: Tuned) -> "pd.DataFrame":
    """The trials of a method as `analysis.search_figures` takes them: a column a parameter, `state`, the objectives."""
    import pandas as pd

    names = [objective.name for objective in search.objectives]
    rows = [
        {
            "trial": r.number,
            "state": r.state,
            **r.params,
            **dict(zip(names, r.values or (None,) * len(names), strict=True)),
        }
        for r in one.rows
    ]
    return pd.DataFrame(rows)


def compare(
    search: Search, ended: Sequence[Tuned], results: Mapping[str, Mapping[str, float]], trainings: Sequence[Training]
) -> list[Line]:
    """The table of tuned against default.

    Args:
        search: what was searched.
        ended: how each method came out.
        results: cell id -> test metrics.
        trainings: those of the tuned and default configurations, their method's label that of a `Pick`.
    """
    lines = []
    for one in ended:
        untouched = default(one.method)
        (winner,) = tuned(one.method, one.best[:1])
        if same(search, winner, untouched):
            winner = untouched
        for index, objective in enumerate(search.objectives):
            new, old = (
                _by_seed(objective, results, [t for t in trainings if t.method.label == pick.label])
                for pick in (winner, untouched)
            )
            both = sorted(new.keys() & old.keys())
            sign = 1.0 if objective.higher else -1.0
            counts = one.counts
            lines.append(
                Line(
                    one.method.label,
                    objective.name,
                    sum(counts.values()) - counts["running"],
                    one.seconds / 60,
                    one.default[index] if one.default else None,
                    one.best[0].values[index] if one.best and one.best[0].values else None,
                    statistics.fmean(old.values()) if old else None,
                    statistics.fmean(new.values()) if new else None,
                    tuple(sign * (new[seed] - old[seed]) for seed in both),
                )
            )
    return lines


def _by_seed(
    objective: Objective, results: Mapping[str, Mapping[str, float]], trainings: Sequence[Training]
) -> dict[int, float]:
    """Seed -> the objective on test, of the seeds whose cells are all there."""
    found: dict[int, list[tuple[Training, float]]] = {}
    lacking: set[int] = set()
    for training in trainings:
        subsets = objective.subsets(training.dataset)
        rows = {subset: results.get(training.cell_id(subset), {}) for subset in subsets}
        if all(objective.metric in row for row in rows.values()):
            found.setdefault(training.seed, []).append((training, objective.of_training(subsets, rows)))
        else:
            lacking.add(training.seed)
    return {seed: objective.of_trial(own) for seed, own in found.items() if seed not in lacking}


# ---- files ----------------------------------------------------------------------------------------------------


def write_report(searcher: Searcher, ended: Sequence[Tuned], folder: Path, lines: Sequence[Line] = ()) -> list[str]:
    """Write the report of a search.

    Returns:
        What could not be drawn, a sentence each.
    """
    from analysis.files import replace_files

    search = searcher.search
    contents = {"trials.csv": trials_csv(ended, search.objectives).encode(), "search.yaml": search.source.encode()}
    if lines:
        contents["tuned-and-default.csv"] = lines_csv(lines).encode()
    told: list[str] = []
    for one in ended:
        end = "" if len(ended) == 1 else f"-{one.method.label}"
        if one.best:
            contents[f"tuned{end}.yaml"] = best_text(search, one).encode()
        contents |= {
            f"{name}{end}.{kind}": data
            for name, kinds in _figures(searcher, one, told).items()
            for kind, data in kinds.items()
        }
        study = searcher.study(one.method, searcher.lane).whole()
        shares = [importances(study, index) for index in range(len(search.objectives))]
        contents[f"importance{end}.json"] = json.dumps(shares, indent=2).encode()
    replace_files(folder, contents)
    return told


def best_text(search: Search, one: Tuned) -> str:
    """The winner of a method as a grid."""
    picks = tuned(one.method, one.best)
    return fragment(search, picks[:1] if len({str(p.train) for p in picks}) > 1 else picks, told_of(search, one, picks))


def told_of(search: Search, one: Tuned, picks: Sequence[Pick]) -> dict[str, str]:
    """A line on each pick."""
    names = [objective.name for objective in search.objectives]
    told = {}
    for pick, row in zip(picks, one.best, strict=False):
        values = ", ".join(f"{name} {value:.4f}" for name, value in zip(names, row.values or (), strict=False))
        told[pick.label] = f"trial {row.number} of {len(one.rows)}, {values} on validation ({shown(row.params)})"
    return told


def lines_csv(lines: Sequence[Line]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    columns = ("method", "objective", "trials", "minutes", "valid_default", "valid_tuned", "test_default", "test_tuned")
    table.writerow([*columns, "test_gain_by_seed"])
    for line in lines:
        cells = ["" if (value := getattr(line, column)) is None else value for column in columns]
        table.writerow([*cells, " ".join(f"{gain:+.4f}" for gain in line.gains)])
    return out.getvalue()


def _figures(searcher: Searcher, one: Tuned, told: list[str]) -> dict[str, dict[str, bytes]]:
    """Every figure of a study as PNG and SVG; one that fails costs itself alone."""
    import matplotlib

    matplotlib.use("Agg")
    from analysis.figures import render
    from analysis.search_figures import draw_landscape, render_drawn

    search, found = searcher.search, {}
    study = searcher.study(one.method, searcher.lane)
    for name, draw in plots(study.whole(), [objective.name for objective in search.objectives]):
        try:
            found[name] = render_drawn(draw)
        except Exception as error:  # Optuna's drawers fail on some spaces
            why = (str(error).splitlines() or [""])[0]
            told.append(f"the figure '{name}' cannot be drawn: {type(error).__name__}: {why}")
    ranges = [p for p in search.spaces[one.method.label].parameters if p.kind != "choice" and not p.when]
    for index, objective in enumerate(search.objectives if len(ranges) >= 2 else ()):
        x, y = ranges[:2]
        drawn = draw_landscape(
            frame(search, one), objective.name, x=x.name, y=y.name, log=(x.log, y.log), higher=objective.higher,
            default=searcher.defaults(one.method),
        )  # fmt: skip
        if drawn is not None:
            found["landscape" if len(search.objectives) == 1 else f"landscape-{index + 1}"] = {
                "png": render(drawn, "png"),
                "svg": render(drawn, "svg"),
            }
    return found
