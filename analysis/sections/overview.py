"""What ran and what is missing: the first thing to read."""

import pandas as pd

from analysis.results import order_methods
from analysis.sections.base import Block, Grid, Head, Inputs, Say, Section, Value
from analysis.tables import MISSING


def overview_section(inputs: Inputs) -> Section:
    """Finished cells and seeds of every method on every data set, what failed, and what a reader must know first."""
    blocks: list[Block] = [Head("What to know first")] if inputs.notes or inputs.failures else []
    blocks += [Say(note, "note") for note in inputs.notes]
    blocks += [Say(f"Failed: {text}", "problem") for text in inputs.failures]
    blocks += [Head("What ran"), _what_ran(inputs)]
    return Section("overview", "Overview", tuple(blocks))


def _what_ran(inputs: Inputs) -> Grid:
    own = inputs.frame[inputs.frame["checkpoint"] == inputs.checkpoint]
    cells = own.drop_duplicates("run_id")
    grouped = cells.groupby(["dataset", "method"])
    counts = pd.DataFrame({"cells": grouped.size(), "seeds": grouped["seed"].nunique()})
    methods = order_methods(cells["method"])
    rows = []
    for dataset in sorted(cells["dataset"].unique()):
        row = [Value(dataset)]
        for method in methods:
            if (dataset, method) not in counts.index:
                row.append(Value(MISSING))
                continue
            n, seeds = (int(x) for x in counts.loc[(dataset, method)])
            link = inputs.links.search({"stage": "cell", "dataset": dataset, "method": method})
            row.append(Value(f"{n:,} ({seeds} {'seed' if seeds == 1 else 'seeds'})", float(n), "", link))
        rows.append(tuple(row))
    heads = (("data set",), *((method,) for method in methods))
    return Grid("Finished cells", heads, 1, tuple(rows), ("A cell is one training on one modality subset.",))
