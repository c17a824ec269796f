"""Results as frames: what a results frame must be, and what is said of it (mean, spread, rank, gaps).

One row of a results frame is one metric of one cell at one checkpoint. A summary has one row per data set,
metric, label ratio, corruption, modality subset and method, and is complete: what did not run is a row that says so.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasets.errors import UserError, did_you_mean

TEXT = ("dataset", "modalities", "corruption", "method", "checkpoint", "metric", "training_id", "run_id")
NUMBERS = ("label_ratio", "value")
INTEGERS = ("seed", "n_modalities")
FLAGS = ("higher_is_better", "primary", "full")
COLUMNS = (
    "dataset", "label_ratio", "modalities", "corruption", "method", "seed", "checkpoint", "metric", "value",
    "higher_is_better", "primary", "n_modalities", "full", "training_id", "run_id",
)  # fmt: skip
"""The columns of a results frame, in the order in which `results.csv` has them."""

CHECKPOINTS = {"last": "last epoch", "best": "best validation epoch"}
CELL = ["dataset", "label_ratio", "modalities", "corruption", "method", "seed", "checkpoint", "metric"]
FACTS = (
    (["dataset", "metric"], "higher_is_better"),
    (["dataset", "metric"], "primary"),
    (["dataset", "modalities"], "n_modalities"),
    (["dataset", "modalities"], "full"),
)
"""Columns that fix another one: what a metric means, and what a modality subset is."""
KEYS = ["dataset", "metric", "label_ratio", "corruption", "modalities", "method"]

CONSTANT = "constant"
"""The method that ignores its inputs: majority class, median, base rates."""

METHOD_ORDER = (
    "robult", "raml", "gmc", "actionmae", "prompt_trans", "cra", "mmin", "dicmor", "tate", "sem", "md", "tmc", "etmc",
    "mvae", "mmvae", "augmentation", "concat", "unimodal", CONSTANT,
)  # fmt: skip
"""Known method ids in the order of columns; others follow by name, and the constant predictor is always last."""

TIE = 1e-9
"""Means closer than this are equal: far below what a test set can resolve, far above rounding."""


def base_method(method: str) -> str:
    """The method id of a label: `robult[no_rec]` -> `robult`."""
    return method.partition("[")[0]


# ---- a valid frame ----------------------------------------------------------------------------------------


def check_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with exactly the columns of `COLUMNS`, in plain dtypes; columns of other names are left out.

    Raises:
        UserError: the frame is empty, a column is missing or of the wrong type, a value is out of range, a cell
            occurs twice, or rows contradict each other (one metric with two directions, two primary metrics).
    """
    if not isinstance(frame, pd.DataFrame):
        raise UserError(f"results must be a pandas DataFrame, got {type(frame).__name__}.")
    _refuse(_missing_columns(frame))
    if frame.empty:
        raise UserError("there are no finished cells to report yet. Run or resume the grid with: bench run GRID")
    _refuse(_wrong_types(frame))
    text = {name: frame[name].astype(str) for name in TEXT}
    numbers = {name: frame[name].astype(np.float64) for name in NUMBERS}
    integers = {name: frame[name].astype(np.int64) for name in INTEGERS}
    flags = {name: frame[name].astype(bool) for name in FLAGS}
    plain = pd.DataFrame(text | numbers | integers | flags, columns=list(COLUMNS)).reset_index(drop=True)
    _refuse([*_out_of_range(plain), *_contradictions(plain), *_repeated_cells(plain)])
    return plain


def unused_columns(frame: pd.DataFrame) -> list[str]:
    """Columns of a results frame that no table or figure reads."""
    return [str(name) for name in frame.columns if name not in COLUMNS]


def some(items: Iterable[object], limit: int = 5) -> str:
    """Items as one readable list, at most `limit` of them: `a, b, c and 4 more`."""
    words = [str(item) for item in items]
    rest = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise UserError(f"the results cannot be used: {'; '.join(problems)}.")


def _missing_columns(frame: pd.DataFrame) -> list[str]:
    missing = [name for name in COLUMNS if name not in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()].unique()
    problems = [f"column '{name}' occurs more than once" for name in repeated if name in COLUMNS]
    if not missing:
        return problems
    unused = unused_columns(frame)
    told = some((f"'{name}'{_hint(name, unused)}" for name in missing), len(COLUMNS))
    left = some((f"'{name}'" for name in unused), len(COLUMNS)) if unused else "none"
    return [*problems, f"missing columns: {told}; columns that are not used: {left}"]


def _hint(name: str, unused: list[str]) -> str:
    hint = did_you_mean(name, unused)
    return f" ({hint.strip()})" if hint else ""


def _wrong_types(frame: pd.DataFrame) -> list[str]:
    """One line per column whose values are of the wrong type."""
    types = pd.api.types
    problems = []
    for name in COLUMNS:
        column = frame[name]
        numeric = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
        if name in TEXT:
            wrong = next((value for value in column.unique() if not isinstance(value, str)), None)
            needs = None if column.map(lambda value: isinstance(value, str)).all() else f"text, found {wrong!r}"
        elif name in NUMBERS:
            needs = None if numeric else f"numbers, got {column.dtype}"
        elif name in INTEGERS:
            needs = None if numeric and types.is_integer_dtype(column) else f"integers, got {column.dtype}"
        else:
            needs = None if types.is_bool_dtype(column) else f"True or False, got {column.dtype}"
        if needs is None and name != "value" and column.isna().any():
            needs = "a value in every row, found empty ones"
        if needs is not None:
            problems.append(f"column '{name}' must hold {needs}")
    return problems


def _out_of_range(frame: pd.DataFrame) -> list[str]:
    problems = []
    ratios = frame["label_ratio"].unique()
    outside = [ratio for ratio in ratios if not 0 < ratio <= 1]
    if outside:
        problems.append(f"label_ratio must be in (0, 1], got {some(outside)}")
    strange = [name for name in frame["checkpoint"].unique() if name not in CHECKPOINTS]
    if strange:
        problems.append(f"checkpoint must be one of {', '.join(CHECKPOINTS)}, got {some(map(repr, strange))}")
    for name in ("dataset", "modalities", "method", "metric"):
        unprintable = [text for text in frame[name].unique() if not (text.strip() and text.isprintable())]
        if unprintable:
            problems.append(f"column '{name}' has names that cannot be printed: {some(map(repr, unprintable))}")
    unknown = [text for text in frame["corruption"].unique() if not _is_corruption(text)]
    if unknown:
        problems.append(
            f"corruption must be like 'gaussian(image)=0.18&mask(text)=0.1', got {some(map(repr, unknown))}"
        )
    return problems


def _is_corruption(text: str) -> bool:
    try:
        _levels(text)
    except ValueError:
        return False
    return True


def _contradictions(frame: pd.DataFrame) -> list[str]:
    """Facts that must be one per metric, or one per modality subset, and are not."""
    problems = []
    for keys, fact in FACTS:
        facts = frame[[*keys, fact]].drop_duplicates()
        torn = facts.loc[facts.duplicated(keys), keys].drop_duplicates()
        problems += [f"data set '{d}' has both values of {fact} for '{name}'" for d, name in torn.to_numpy()[:3]]
    primary = frame.loc[frame["primary"], ["dataset", "metric"]].drop_duplicates()
    for dataset, names in primary.groupby("dataset")["metric"]:
        if len(names) > 1:
            problems.append(f"data set '{dataset}' has more than one primary metric: {some(sorted(names))}")
    return problems


def _repeated_cells(frame: pd.DataFrame) -> list[str]:
    repeated = frame.loc[frame.duplicated(CELL), CELL].drop_duplicates()
    if repeated.empty:
        return []
    told = some(
        (
            f"({row.dataset}, {row.label_ratio:g}, {tested(str(row.modalities), str(row.corruption))}, {row.method}, "
            f"seed {row.seed}, {row.checkpoint}, {row.metric})"
            for row in repeated.itertuples()
        ),
        3,
    )
    return [f"cells that occur more than once: {told}; give trainings that differ different method or data set labels"]


# ---- orders -----------------------------------------------------------------------------------------------


def order_methods(methods: Iterable[str]) -> list[str]:
    """Methods in the order of columns: as in `METHOD_ORDER`, each followed by its variants; unknown ones by name."""
    known = {name: rank for rank, name in enumerate(METHOD_ORDER[:-1])}

    def place(method: str) -> tuple[bool, int, str, str]:
        base = base_method(method)
        return (base == CONSTANT, known.get(base, len(known)), base, method)

    return sorted(set(methods), key=place)


def order_subsets(subsets: Iterable[str]) -> list[str]:
    """Modality subsets, fewest modalities first, then in the order in which the largest subset writes them."""
    names = sorted(set(subsets), key=lambda subset: (-len(subset.split("+")), subset))
    rank: dict[str, int] = {}
    for subset in names:
        for modality in subset.split("+"):
            rank.setdefault(modality, len(rank))
    return sorted(names, key=lambda subset: (subset.count("+"), [rank[part] for part in subset.split("+")]))


def order_corruptions(corruptions: Iterable[str]) -> list[str]:
    """Corruptions, clean inputs first, then by what is done to what, each from its lowest level to its highest."""

    return sorted(set(corruptions), key=lambda text: ([name for name, _ in _levels(text)], _levels(text)))


def _levels(corruption: str) -> list[tuple[str, float]]:
    """What is done to what, and how much: `gaussian(image)=0.18` -> `gaussian(image)`, 0.18.

    Raises:
        ValueError: a level is no number.
    """
    steps = (step.rpartition("=") for step in corruption.split("&") if corruption)
    return [(name, float(level)) for name, _, level in steps]


def tested(modalities: str, corruption: str) -> str:
    """What a cell is tested on, in one line: `text+image, gaussian(image)=0.18`."""
    return f"{modalities}, {corruption}" if corruption else modalities


def _order_metrics(facts: pd.DataFrame) -> list[str]:
    """Metrics of one data set: the primary one first, then by name."""
    ranked = facts.sort_values(["primary", "metric"], ascending=[False, True])
    return [str(name) for name in ranked["metric"]]


# ---- summary ----------------------------------------------------------------------------------------------


def summarise(frame: pd.DataFrame, checkpoint: str, *, methods: Sequence[str] = ()) -> pd.DataFrame:
    """Mean and spread over seeds of every (data set, metric, label ratio, corruption, modality subset, method).

    The rows are complete and in the order of the tables: every method of the frame appears beside every label
    ratio, subset and metric of a data set; where it has no result `n_seeds` is 0.

    Columns: `dataset`, `metric`, `label_ratio`, `corruption`, `modalities`, `method`, `n_modalities`, `full`,
    `higher_is_better`, `primary`; `mean` and `std` over seeds (std with ddof = 1, NaN for one seed; both NaN as
    soon as one seed is not finite, since the mean of the others would flatter); `n_seeds`; `n_nan`, the seeds
    without a finite value; `best` and `second`, the marks of a table row; `is_constant`, True where a method
    does exactly what the constant predictor does.

    Marks: means closer than `TIE` share a mark, `second` is the next distinct mean, NaN is never marked, and a
    row in which fewer than two methods have results has no marks.

    Args:
        frame: results, see `check_frame`.
        checkpoint: `last` or `best`.
        methods: what else is shown, without results.

    Raises:
        UserError: the frame is bad, or has no result at this checkpoint.
    """
    chosen = at_checkpoint(frame, checkpoint)
    methods = order_methods([*chosen["method"].unique(), *methods])
    chosen["value"] = chosen["value"].where(np.isfinite(chosen["value"]))
    grouped = chosen.groupby(KEYS, sort=False)["value"]
    spread = pd.DataFrame({"mean": grouped.mean(), "std": grouped.std(ddof=1), "n_seeds": grouped.size()})
    spread["n_nan"] = spread["n_seeds"] - grouped.count()
    spread.loc[spread["n_nan"] > 0, ["mean", "std"]] = np.nan
    summary = spread.reindex(_complete_index(chosen, methods)).reset_index()
    summary[["n_seeds", "n_nan"]] = summary[["n_seeds", "n_nan"]].fillna(0).astype(np.int64)
    for keys, facts in ((["dataset", "modalities"], ["n_modalities", "full"]),
                        (["dataset", "metric"], ["higher_is_better", "primary"])):  # fmt: skip
        summary = summary.merge(chosen[keys + facts].drop_duplicates(), on=keys, how="left", validate="many_to_one")
    summary["best"], summary["second"] = _marks(summary, len(methods))
    summary["is_constant"] = _equals_constant(summary, chosen, methods)
    return summary[
        [*KEYS, "n_modalities", "full", "higher_is_better", "primary",
         "mean", "std", "n_seeds", "n_nan", "best", "second", "is_constant"]
    ]  # fmt: skip


def at_checkpoint(frame: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    """The checked rows of one checkpoint.

    Raises:
        UserError: the frame is bad, or has no result at this checkpoint.
    """
    if checkpoint not in CHECKPOINTS:
        raise UserError(
            f"checkpoint must be one of {', '.join(CHECKPOINTS)}, got '{checkpoint}'."
            f"{did_you_mean(checkpoint, list(CHECKPOINTS))}"
        )
    frame = check_frame(frame)
    # By seed, so that sums are taken in one order, and equal results give equal bytes.
    chosen = frame[frame["checkpoint"] == checkpoint].sort_values("seed", kind="stable", ignore_index=True)
    if chosen.empty:
        others = some(sorted(frame["checkpoint"].unique()))
        raise UserError(f"there are no results of checkpoint '{checkpoint}'; there are results of: {others}.")
    return chosen


def _complete_index(chosen: pd.DataFrame, methods: list[str]) -> pd.MultiIndex:
    """Every combination a table shows, data set by data set, methods varying fastest."""
    parts: list[pd.DataFrame] = []
    for dataset, rows in chosen.groupby("dataset", sort=True):
        axes: list[list[Any]] = [
            [dataset],
            _order_metrics(rows[["metric", "primary"]].drop_duplicates()),
            sorted(rows["label_ratio"].unique()),
            order_corruptions(rows["corruption"].unique()),
            order_subsets(rows["modalities"].unique()),
            methods,
        ]
        product = pd.MultiIndex.from_product(axes, names=KEYS).to_frame(index=False)
        asked = rows[["corruption", "modalities"]].drop_duplicates()  # not every subset holds what is corrupted
        parts.append(product.merge(asked, on=["corruption", "modalities"], how="inner"))
    return pd.MultiIndex.from_frame(pd.concat(parts, ignore_index=True))


def _marks(summary: pd.DataFrame, n_methods: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Best and second of every table row; a table row is `n_methods` consecutive rows of the summary."""
    sign = np.where(summary["higher_is_better"], 1.0, -1.0)
    score: NDArray[Any] = (summary["mean"].to_numpy(float) * sign).reshape(-1, n_methods)
    ranked = np.isfinite(score) & ((summary["n_seeds"].to_numpy().reshape(score.shape) > 0).sum(1, keepdims=True) > 1)
    score = np.where(ranked, score, -np.inf)
    best = ranked & (score >= score.max(1, keepdims=True) - TIE)
    rest = np.where(best, -np.inf, score)
    second = ranked & ~best & (score >= rest.max(1, keepdims=True) - TIE)
    return best.ravel(), second.ravel()


def _equals_constant(summary: pd.DataFrame, chosen: pd.DataFrame, methods: list[str]) -> NDArray[np.bool_]:
    """Where the mean, or the value of every seed, equals the constant predictor's; never for that predictor itself."""
    if CONSTANT not in methods:
        return np.zeros(len(summary), dtype=bool)
    place = methods.index(CONSTANT)
    mean = summary["mean"].to_numpy(float).reshape(-1, len(methods))
    equal: NDArray[np.bool_] = np.abs(mean - mean[:, [place]]) <= TIE  # NaN equals nothing
    shared = [*KEYS[:-1], "seed"]
    reference = chosen.loc[chosen["method"] == CONSTANT, [*shared, "value"]]
    pairs = chosen[[*KEYS, "seed", "value"]].merge(reference, on=shared, how="left", suffixes=("", "_constant"))
    same = (pairs["value"] - pairs["value_constant"]).abs() <= TIE
    paired = same.groupby([pairs[key] for key in KEYS], sort=False).all()
    index = pd.MultiIndex.from_frame(summary[KEYS])
    equal |= paired.reindex(index, fill_value=False).to_numpy(bool).reshape(equal.shape)
    equal[:, place] = False
    return equal.ravel()
