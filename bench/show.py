"""Well-set tables for the terminal."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.estimate import Estimate
from bench.plan import Plan, PlanSummary
from bench.progress import seconds

if TYPE_CHECKING:
    import pandas as pd


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _console() -> Console:
    """On a terminal its own width; in a pipe or a file as wide as the text needs."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def print_data(rows: list[dict[str, Any]]) -> None:
    """`bench data ls`."""
    table = _table("data set", "state", "task", "modalities", "train/valid/test")
    for row in rows:
        cells = (row["name"], row["state"], row.get("task", ""), row.get("modalities", ""), row.get("sizes", ""))
        table.add_row(*map(Text, cells))
    console = _console()
    console.print(table)
    for row in rows:
        if row["state"] != "ready":
            console.print(Text(f"\n{row['name']}: {row['why']}"))


def print_plan(plan: Plan, summary: PlanSummary, cost: Estimate) -> None:
    """`bench plan`: what there is to do, what is impossible and why, and what it will take."""
    numbers = ("trainings", "cells", "done", "impossible")
    table = _table("data set", "method", *numbers, right=numbers)
    for row in summary.rows:
        counts = (row.trainings, row.cells, row.cells_done, row.cells_skipped)
        table.add_row(Text(row.dataset), Text(row.method), *(f"{count:,}" if count else "-" for count in counts))
    console = _console()
    console.print(table)
    for row in summary.rows:
        for reason in row.reasons:
            console.print(Text(f"impossible: {row.method} on {row.dataset}: {reason}"))
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}"))
    console.print(Text(f"\n{_totals(summary)}"))
    if cost.seconds:
        console.print(Text(_took(cost)))


def print_collection(rows: list[dict[str, Any]], cost: Estimate | None) -> None:
    """`bench plan` of a collection: a line a grid, and all of them together."""
    numbers = ("trainings", "cells", "done", "shared")
    table = _table("grid", "experiment", *numbers, right=numbers)
    keys = ("trainings", "cells", "cells_done", "shared")
    for row in rows:
        counts = (f"{row[key]:,}" if row[key] else "-" for key in keys)
        table.add_row(Text(row["grid"]), Text(row["experiment"]), *counts)
    console = _console()
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


def print_tables(frame: "pd.DataFrame", checkpoint: str) -> None:
    """The primary metric's table of every data set; the report has the others."""
    from analysis.results import summarise
    from analysis.tables import make_tables, to_terminal

    primary = frame[frame.primary]
    console = _console()
    for table in make_tables(summarise(primary, checkpoint), checkpoint):
        console.print(to_terminal(table, plain=not console.is_terminal))
        console.print()
