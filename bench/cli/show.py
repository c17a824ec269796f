"""Well-set tables for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.grid.plan import Plan, PlanSummary
from bench.running.progress import seconds
from bench.scheduling.estimate import Estimate

if TYPE_CHECKING:
    import pandas as pd

    from analysis.comparison import Comparison
    from bench.search.loop import Tuned
    from bench.search.report import Line
    from bench.search.search import Search


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def terminal() -> Console:
    """On a terminal its own width; in a pipe or a file as wide as the text needs."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def print_data(rows: list[dict[str, Any]]) -> None:
    """`bench data ls`."""
    ready = _table("ready", "task", "modalities", "train/valid/test")
    others = _table("not ready", "what makes it ready")
    for row in rows:
        if row["state"] == "ready":
            ready.add_row(*(Text(row[key]) for key in ("name", "task", "modalities", "sizes")))
        else:
            others.add_row(Text(row["name"]), Text(row["why"].rpartition("Prepare it with: ")[2]))
    console = terminal()
    console.print(ready)
    if others.row_count:
        console.print()
        console.print(others)


def print_plan(plan: Plan, summary: PlanSummary, cost: Estimate) -> None:
    """`bench plan`: what there is to do, what is impossible and why, and what it will take."""
    numbers = ("trainings", "cells", "done", "impossible")
    table = _table("data set", "method", *numbers, right=numbers)
    for row in summary.rows:
        counts = (row.trainings, row.cells, row.cells_done, row.cells_skipped)
        table.add_row(Text(row.dataset), Text(row.method), *(f"{count:,}" if count else "-" for count in counts))
    console = terminal()
    console.print(table)
    for row in summary.rows:
        for reason in row.reasons:
            console.print(Text(f"impossible: {row.method} on {row.dataset}: {reason}"))
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}"))
    console.print(Text(f"\n{_totals(summary)}"))
    if cost.seconds:
        console.print(Text(_took(cost)))


def print_searched(search: "Search", tuned: "Sequence[Tuned]", lines: "Sequence[Line]") -> None:
    """`bench search`: each method tuned and untuned, on validation and on test."""
    names = ("valid: default", "tuned", "test: default", "tuned ")
    table = _table("method", "objective", "trials", *names, right=("trials", *names))
    for line in lines:
        values = (line.valid_default, line.valid_tuned, line.test_default, line.test_tuned)
        numbers = ("-" if value is None else f"{value:.4f}" for value in values)
        table.add_row(Text(line.method), Text(line.objective), str(line.trials), *numbers)
    console = terminal()
    print_trials(search, tuned)
    if lines:
        console.print(Text("\nThe winner was chosen on validation; test was looked at once, now."))
        console.print(table)


def print_trials(search: "Search", tuned: "Sequence[Tuned]") -> None:
    """`bench search show`: how far each study is, and its best trials."""
    from bench.search.display import shown

    console = terminal()
    for one in tuned:
        counts = ", ".join(f"{count} {state}" for state, count in one.counts.items() if count)
        console.print(Text(f"{search.study_name(one.method.label)}: {counts or 'no trial yet'}"))
        for row in one.best:
            values = zip(search.objectives, row.values or (), strict=False)
            told = ", ".join(f"{objective.name} {value:.4f}" for objective, value in values)
            console.print(Text(f"  trial {row.number}: {told} with {shown(row.params)}"))


def print_collection(rows: list[dict[str, Any]], cost: Estimate | None) -> None:
    """`bench plan` of a collection: a line a grid, and all of them together."""
    numbers = ("trainings", "cells", "done", "shared")
    table = _table("grid", "experiment", *numbers, right=numbers)
    keys = ("trainings", "cells", "cells_done", "shared")
    for row in rows:
        counts = (f"{row[key]:,}" if row[key] else "-" for key in keys)
        table.add_row(Text(row["grid"]), Text(row["experiment"]), *counts)
    console = terminal()
    console.print(table)
    total = {key: sum(row[key] for row in rows) for key in keys}
    told = f"{total['trainings']:,} trainings, {total['cells']:,} cells; {total['cells_done']:,} cells done."
    console.print(Text(f"\n{told} Shared with a grid above, and not counted again: {total['shared']:,} trainings."))
    if cost is not None and cost.seconds:
        console.print(Text(_took(cost)))


def _totals(summary: PlanSummary) -> str:
    cells, done = summary.total("cells"), summary.total("cells_done")
    text = f"{summary.total('trainings'):,} trainings, {cells:,} cells"
    if done == cells:
        return f"{text}; all done."
    return f"{text}; {done:,} cells done." if done else f"{text}; none done yet."


def _took(cost: Estimate) -> str:
    slots = f"{cost.n_slots} slot{'s' * (cost.n_slots > 1)}"
    return (
        f"About {seconds(cost.seconds)} on {slots}, {cost.memory_mib / 1024:.1f} GiB of memory, "
        f"{max(cost.disk_mib, 1):.0f} MiB in the tracking store (timed on random data of the same shapes)."
    )


MAX_GROUPS = 16
"""Rows of a comparison that fit on a screen with the rest of it."""


def print_comparison(found: "Comparison") -> None:
    """`bench compare`: what is the same, what is not and by how much, and what the two were made with."""
    from analysis.results import CHECKPOINTS, some

    console = terminal()
    console.print(Text(found.headline, style="bold"))
    console.print(Text(f"A is {found.a}, B is {found.b}; test results of the {CHECKPOINTS[found.checkpoint]}."))
    for name, own in found.only.groupby("experiment", sort=False):
        why = [f"{row.why} ({row.n_cells})" for row in own.itertuples()]
        n = int(own["n_cells"].sum())
        console.print(Text(f"Only in {name}: {n} cell{'s' * (n != 1)}: {some(why)}."))
    unequal = found.groups[found.groups["n_identical"] < found.groups["n_cells"]]
    if len(unequal):
        console.print(_groups_table(unequal.head(MAX_GROUPS)))
    rest, same = len(unequal) - MAX_GROUPS, len(found.groups) - len(unequal)
    told = [f"{rest} more that differ (--json has them)"] if rest > 0 else []
    told += [f"{same} with identical values"] if same else []
    if told and len(unequal):
        console.print(Text(f"Of {len(found.groups)} pairs of data set and method: {', '.join(told)}."))
    if len(found.largest):
        console.print(Text("\nLargest differences (sd: standard deviations of the data set's results)", style="bold"))
        console.print(_largest_table(found.largest))
    versions = found.versions.rename(columns={"name": "key"}).assign(where="versions")
    rows = [*found.settings.to_dict("records"), *versions.to_dict("records")]
    if rows:
        console.print(Text("\nMade with", style="bold"))
        console.print(_made_with_table(rows))
    elif not found.same:
        console.print(Text("\nNo setting and no version that is recorded differs."))
    for note in found.notes:
        console.print(Text(f"Note: {note}"))


def _groups_table(groups: "pd.DataFrame") -> Table:
    numbers = ("cells", "identical", "A", "B", "B - A", "95% interval")
    table = _table("data set", "method", "metric", *numbers, "B is", "test", right=numbers)
    for row in groups.to_dict("records"):
        low, high = row["low"], row["high"]
        interval = f"{low:+.4f} to {high:+.4f}" if low == low else "-"
        metric = f"{row['metric']} {'↑' if row['higher_is_better'] else '↓'}"
        cells = (str(row["n_cells"]), str(row["n_identical"]), *map(_number, (row["a"], row["b"])))
        words = (_signed(row["difference"]), interval, row["verdict"], row["test"])
        table.add_row(*map(Text, (row["dataset"], row["method"], metric, *cells, *words)))
    return table


def _largest_table(largest: "pd.DataFrame") -> Table:
    from analysis.results import tested
    from analysis.tables import percent

    numbers = ("seeds", "A", "B", "B - A", "sd")
    table = _table("data set", "method", "labels", "tested on", "metric", *numbers, "B is", right=numbers)
    for row in largest.to_dict("records"):
        where = tested(row["modalities"], row["corruption"])
        names = (row["dataset"], row["method"], percent(row["label_ratio"]), where, row["metric"], str(row["n_seeds"]))
        values = (_number(row["a"]), _number(row["b"]), _signed(row["difference"]), f"{row['spreads']:.2f}")
        table.add_row(*map(Text, (*names, *values, row["verdict"])))
    return table


MAX_MADE_WITH = 12


def _made_with_table(rows: list[dict[Any, Any]]) -> Table:
    table = _table("setting", "A", "B", "where")
    for row in rows[:MAX_MADE_WITH]:
        texts = (str(row[name]) for name in ("key", "a", "b", "where"))
        table.add_row(*(Text(text if len(text) <= 60 else f"{text[:57]}...") for text in texts))
    if len(rows) > MAX_MADE_WITH:
        table.add_row(Text(f"and {len(rows) - MAX_MADE_WITH} more (--json has them)"))
    return table


def _number(value: float) -> str:
    return f"{value:.4f}" if value == value else "-"


def _signed(value: float) -> str:
    return f"{value:+.4f}" if value == value else "-"


def print_tables(frame: "pd.DataFrame", checkpoint: str) -> None:
    """The primary metric's table of every data set; the report has the others."""
    from analysis.results import summarise
    from analysis.tables import make_tables, to_terminal

    primary = frame[frame.primary]
    console = terminal()
    for table in make_tables(summarise(primary, checkpoint), checkpoint):
        console.print(to_terminal(table, plain=not console.is_terminal))
        console.print()
