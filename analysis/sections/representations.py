"""What kept arrays say: how representations lie (Robult, Tables 12 and 14, Figures 8 and 10), whether pseudo-labels
are right (Figure 9), and whether proximities are Gaussian.

One seed of each method, the lowest that kept arrays; at most `MAX_SAMPLES` test samples, the same for all methods.
Arrays of one data set and label ratio are in memory at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.dca import DelaunaySettings, delaunay_frame
from analysis.geometry import geometry_frame
from analysis.information import information_frame
from analysis.paper_tables import MEASURED
from analysis.proximity import positive_proximity, proximity_frame
from analysis.pseudo_labels import PseudoLabels, judge, weighted_labels
from analysis.representation_figures import draw_clusters, draw_confusion, draw_geometry, draw_normality
from analysis.representations import FUSED, RepresentationError, content_key, fused_and_single, modality_of
from analysis.results import base_method, order_methods
from analysis.sections.base import (
    Block,
    Grid,
    Head,
    Inputs,
    Kept,
    KeptGroup,
    Say,
    Section,
    Value,
    attempt,
    grid_of,
    number,
    picture,
)
from analysis.sections.results import file_name
from analysis.sections.weights import fusion_weights
from analysis.tables import percent

MAX_SAMPLES = 400
"""Test samples that are looked at; of more, as many are drawn, the same for all methods of a data set."""
SETTINGS = DelaunaySettings(n_rays=500)
N_SUBSAMPLES = 3
MAX_ANCHORS = 60
PAIRS, VIEWS = 1, 6
"""Methods that have a Figure 8, and columns of Figure 10: every view takes seconds."""

Named = Mapping[str, NDArray[Any]]


def thinned(arrays: Mapping[str, NDArray[Any]], full: str) -> dict[str, NDArray[Any]]:
    """What this module reads of a training's arrays, at most `MAX_SAMPLES` samples of the test split.

    Args:
        arrays: named as the tracking store keeps them.
        full: the data set's full modality subset, whose representations are read.
    """
    found = {name: x for name, x in arrays.items() if name.startswith(("pseudo/", "weight/"))}
    groups = arrays.get("group")
    if groups is None:
        return found
    rows = np.arange(len(groups))
    if len(rows) > MAX_SAMPLES:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:MAX_SAMPLES])
    prefix = f"embedding/{full}/"
    kept = {name: x[rows] for name, x in arrays.items() if name.startswith(prefix) and len(x) == len(groups)}
    return found | kept | {"group": groups[rows], "n_all": np.array(len(groups))}


@dataclass
class Analysed:
    """What the kept arrays gave: blocks of four sections, and numbers for the papers' tables."""

    representations: list[Block] = field(default_factory=list)
    weights: list[Block] = field(default_factory=list)
    pseudo_labels: list[Block] = field(default_factory=list)
    proximity: list[Block] = field(default_factory=list)
    measured: list[pd.DataFrame] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sections(self) -> Iterator[Section]:
        if self.representations:
            yield Section("representations", "Representations", (Say(_HOW), *self.representations))
        if self.weights:
            yield Section("weights", "Fusion weights under corruption (RAML, Figure 5)", (Say(_WEIGHTS), *self.weights))
        if self.pseudo_labels:
            yield Section("pseudo-labels", "Pseudo-labels (Robult, Figure 9)", (Say(_PSEUDO), *self.pseudo_labels))
        if self.proximity:
            yield Section("proximity", "Is proximity Gaussian?", (Say(_PROXIMITY), *self.proximity))


_HOW = (
    "Representations of test samples with all modalities: s of all together, z of each modality. One seed a method, "
    f"the lowest that kept arrays; at most {MAX_SAMPLES} samples, the same for all methods."
)
_WEIGHTS = (
    "The share of each modality in every feature of the fused representation, mean over the test split, as inputs are "
    "corrupted more and more: a method that adapts takes weight from what is corrupted. One seed a method."
)
_PSEUDO = (
    "Training batches of one epoch: the class that a pair counts a sample as, against the label that was held back; "
    "then without the quarter of lowest weight in each batch, and without as many at random."
)
_PROXIMITY = (
    "Robult weighs positive pairs by a Gaussian of their proximity. Each anchor with enough partners is tested by "
    f"itself, at most {MAX_ANCHORS} anchors, on one seed; at least 20 partners each."
)


def analyse(inputs: Inputs, tell: Callable[[str], None] = lambda _: None) -> Analysed:
    """All that is said of kept arrays, one data set and label ratio after the other.

    Args:
        inputs: of which `kept` is read.
        tell: is told what is looked at, for somebody who waits.
    """
    if not inputs.kept:
        return Analysed()
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    found = Analysed()
    # Arrays are small: threads of BLAS and OpenMP wait for each other longer than they work.
    with threadpool_limits(1):
        _analyse(inputs, tell, found)
    return found


def _analyse(inputs: Inputs, tell: Callable[[str], None], found: Analysed) -> None:
    for group in inputs.kept:
        tell(f"representations of {group.dataset}, {percent(group.label_ratio)} of the labels")
        kept, notes = group.read()
        found.notes += notes
        order = {method: at for at, method in enumerate(order_methods(one.method for one in kept))}
        kept = sorted(kept, key=lambda one: order[one.method])
        title = f"{group.dataset}, {percent(group.label_ratio)} of the labels"
        found.representations += _with_head(title, _representations(inputs, group, kept, found))
        found.weights += _with_head(title, fusion_weights(inputs, kept))
        found.pseudo_labels += _with_head(title, _pseudo_labels(inputs, kept))
        found.proximity += _with_head(title, _proximity(inputs, kept))


def _with_head(title: str, blocks: Iterator[Block]) -> list[Block]:
    own = list(blocks)
    return [Head(title), *own] if own else []


def _place(inputs: Inputs, one: Kept) -> str:
    return inputs.links.of([one.run_id])


# ---- representations --------------------------------------------------------------------------------------


def _named(one: Kept) -> dict[str, NDArray[Any]]:
    """The representations of a training with all modalities: `s`, `z/...`, `u/...`."""
    prefix = f"embedding/{one.full}/"
    return {name[len(prefix) :]: x for name, x in one.arrays.items() if name.startswith(prefix)}


def _key(*arrays: Any, **settings: object) -> str:
    return content_key(*arrays, **settings)


def _representations(inputs: Inputs, group: KeptGroup, kept: list[Kept], found: Analysed) -> Iterator[Block]:
    able = [one for one in kept if any(name.startswith("z/") for name in _named(one)) and "group" in one.arrays]
    if not able:
        return
    seeds = sorted({one.seed for one in able})
    n, n_all = len(able[0].arrays["group"]), int(able[0].arrays["n_all"])
    drawn = f"{n} of {n_all} test samples" if n < n_all else f"all {n} test samples"
    yield Say(f"{len(able)} methods, seed {', '.join(map(str, seeds))}, {drawn}.", "note")
    links = {one.method: _place(inputs, one) for one in able}
    yield from attempt("DCA", lambda: _dca(inputs, group, able, links, found))
    yield from attempt("Alignment and uniformity", lambda: _geometry(inputs, able, links))
    yield from attempt("Mutual information", lambda: _information(inputs, group, able, links, found))
    for one in able[:PAIRS]:
        yield from attempt("Figure 8", partial(_figure_8, inputs, group, one))
    yield from attempt("Figure 10", lambda: _figure_10(inputs, group, able))


def _per_method(
    inputs: Inputs, what: str, able: list[Kept], make: Callable[[Kept, dict[str, NDArray[Any]]], pd.DataFrame]
) -> pd.DataFrame:
    """An analysis of every method, each cached by the content of its arrays."""
    parts = []
    for one in able:
        named = _named(one)
        key = _key(*named.values(), one.arrays["group"], names=tuple(named), what=what)
        part = inputs.cache.frame(key, partial(make, one, named))
        parts.append(part.assign(method=one.method))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _problems(frame: pd.DataFrame) -> list[str]:
    told = frame["problem"].fillna("").astype(str)
    return [text for text in dict.fromkeys(told) if text]


def _across(
    frame: pd.DataFrame, row: str, values: str, caption: str, links: Mapping[str, str], cell: Callable[[Any], Value],
    notes: tuple[str, ...],
) -> Grid:  # fmt: skip
    """Rows down, methods across."""
    methods, rows = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame[row]))
    at = {(r[row], r["method"]): r for r in frame.to_dict("records")}
    lines = []
    for name in rows:
        line = [Value(str(name))]
        for method in methods:
            found = at.get((name, method))
            value = cell(found) if found is not None and not pd.isna(found[values]) else Value("—")
            line.append(Value(value.text, value.sort, value.mark, links[method] if value.sort is not None else ""))
        lines.append(tuple(line))
    return Grid(caption, (("representation",), *((method,) for method in methods)), 1, tuple(lines), notes)


def _dca(
    inputs: Inputs, group: KeptGroup, able: list[Kept], links: Mapping[str, str], found: Analysed
) -> Iterator[Block]:
    size = len(able[0].arrays["group"]) // 2

    def make(one: Kept, named: Named) -> pd.DataFrame:
        return delaunay_frame({one.method: named}, SETTINGS, size=size, n_subsamples=N_SUBSAMPLES)

    frame = _per_method(inputs, f"dca {SETTINGS} {N_SUBSAMPLES} {size}", able, make)
    if frame.empty:
        return

    def cell(row: Mapping[str, Any]) -> Value:
        mean, std = float(row["harmonic_mean"]), float(row["harmonic_mean_std"])
        return Value(f"{mean:.3f} ± {std:.3f}", mean)

    zero = [
        f"{row['method']}, {row['evaluation']}: 0 since {row['zero_because']}."
        for row in frame.to_dict("records")
        if row["zero_because"]
    ]
    notes = (
        f"Harmonic mean of precision, recall and network quality of the modality's representation against s, mean ± "
        f"deviation over {N_SUBSAMPLES} subsamples of {size} samples, {SETTINGS.n_rays} rays a sample. Equal, "
        "well mixed sets score about 0.75, not 1; the other half of s is the ceiling. Compare at equal sizes only.",
        *zero, *_problems(frame),
    )  # fmt: skip
    yield _across(frame, "evaluation", "harmonic_mean", f"DCA (Robult, Table 14): {group.dataset}, "
                  f"{percent(group.label_ratio)}", links, cell, notes)  # fmt: skip
    known = frame[frame["harmonic_mean"].notna() & (frame["evaluation"] != "full, other half")]
    found.measured.append(
        _measured(inputs, group, able, known["method"], known["evaluation"], "dca_harmonic_mean",
                  known["harmonic_mean"], reference=able[0].full)
    )  # fmt: skip


def _measured(
    inputs: Inputs, group: KeptGroup, able: list[Kept], methods: "pd.Series[str]", modalities: "pd.Series[str]",
    metric: "str | pd.Series[Any]", values: "pd.Series[Any]", *, reference: str = "",
) -> pd.DataFrame:  # fmt: skip
    """Numbers as rows of `analysis.paper_tables.MEASURED`."""
    if methods.empty:
        return pd.DataFrame(columns=MEASURED)
    seeds = {one.method: one.seed for one in able}
    runs = {one.method: one.run_id for one in able}
    inside = methods.str.partition("[")[2].str.removesuffix("]")
    return pd.DataFrame({
        "dataset": inputs.origins.name(group.dataset), "label_ratio": group.label_ratio,
        "modalities": modalities, "method": methods.map(base_method), "variant": inside.where(inside != "", "default"),
        "metric": metric, "protocol": "", "sigma": np.nan, "mask_p": np.nan, "reference_modalities": reference,
        "train_dataset": inputs.origins.trained_on(group.dataset), "seed": methods.map(seeds), "value": values,
        "higher_is_better": True, "source": group.dataset, "run_id": methods.map(runs),
    })[MEASURED]  # fmt: skip


GEOMETRY = {
    "method": "method", "representation": "representation", "d": "dimensions", "uniformity": "uniformity ↓",
    "uniformity_floor": "its floor", "alignment_item": "alignment, same sample ↓",
    "alignment_class": "alignment, same class ↓", "silhouette": "silhouette ↑", "neighbour_accuracy": "5-NN accuracy ↑",
}  # fmt: skip


def _geometry(inputs: Inputs, able: list[Kept], links: Mapping[str, str]) -> Iterator[Block]:
    frame = _per_method(
        inputs, "geometry", able, lambda one, named: geometry_frame({one.method: named}, one.arrays["group"])
    )
    notes = [
        "Measured on the unit sphere of the original space (Wang and Isola, 2020). Alignment: mean squared distance of "
        "z and s of a sample, and of two samples of a class; uniformity: lower is more even, its floor depends on the "
        "dimension.",
        *_problems(frame),
    ]
    yield grid_of(frame, "Alignment, uniformity and separation of classes", columns=GEOMETRY, n_stubs=2, notes=notes,
                  links=[links[method] for method in frame["method"]],
                  shown={"d": lambda d: number(float(d), 0)})  # fmt: skip


def _information(
    inputs: Inputs, group: KeptGroup, able: list[Kept], links: Mapping[str, str], found: Analysed
) -> Iterator[Block]:
    frame = _per_method(inputs, "information", able, lambda one, named: information_frame({one.method: named}))
    if frame.empty:
        return

    def cell(row: Mapping[str, Any]) -> Value:
        value, null = float(row["information"]), float(row["null_mean"])
        return Value(f"{value:.3f}" + ("" if np.isnan(null) else f" ({null:.3f})"), value)

    notes = (
        "Nats, mean over dimensions, 10 bins of equal width; in brackets what shuffled pairs give, for the estimate of "
        "independent data is not 0. 'fused' is the entropy of s.",
        *_problems(frame),
    )
    yield _across(frame, "modality", "information", f"Mutual information of each modality with s (Robult, Table 12): "
                  f"{group.dataset}, {percent(group.label_ratio)}", links, cell, notes)  # fmt: skip
    columns = {"method": "method", "modality": "modality", "information": "histogram", "null_95": "95% of shuffled",
               "miller_madow": "less its bias", "pooled": "pooled", "neighbours": "neighbours, per dimension",
               "neighbours_pca": "neighbours, 3 components"}  # fmt: skip
    yield grid_of(frame, "Mutual information by other estimators", columns=columns, n_stubs=2,
                  links=[links[method] for method in frame["method"]])  # fmt: skip
    known = frame[frame["information"].notna()]
    fused = known["modality"] == "fused"
    metric = pd.Series(np.where(fused, "entropy", "mutual_information"), index=known.index)
    modalities = known["modality"].mask(fused, able[0].full)
    found.measured.append(
        _measured(inputs, group, able, known["method"], modalities, metric, known["information"])
    )  # fmt: skip


def _figure_8(inputs: Inputs, group: KeptGroup, one: Kept) -> Iterator[Block]:
    named = {name: x for name, x in _named(one).items() if not name.startswith("u/")}
    what = f"{one.method} on {group.dataset}, {percent(group.label_ratio)}"
    yield picture(
        inputs,
        _key(*named.values(), one.arrays["group"], names=tuple(named)),
        lambda: draw_geometry(one.method, named, one.arrays["group"]),
        name=f"geometry-{file_name(what)}",
        caption=f"Alignment and uniformity (Robult, Figure 8): {what}",
        alt=f"Distances of positive pairs and densities of angles of {what}; the table above has the numbers.",
    )


def _figure_10(inputs: Inputs, group: KeptGroup, able: list[Kept]) -> Iterator[Block]:
    shown = able[:VIEWS]
    classes = shown[0].arrays["group"]
    alike = [one for one in shown if np.array_equal(one.arrays["group"], classes)]
    if len(alike) < len(shown):
        yield Say("Methods were tested on different samples; those unlike the first are left out.", "problem")
    named = {one.method: {n: x for n, x in _named(one).items() if not n.startswith("u/")} for one in alike}
    what = f"{group.dataset}, {percent(group.label_ratio)}"
    arrays = [x for own in named.values() for x in own.values()]
    key = _key(*arrays, classes, names=repr({m: list(own) for m, own in named.items()}), styles=repr(inputs.styles))
    yield picture(
        inputs, key, lambda: draw_clusters(named, classes, inputs.styles), name=f"clusters-{file_name(what)}",
        caption=f"Views of the representations (Robult, Figure 10): {what}",
        alt=f"t-SNE views of {', '.join(named)} on {what}; silhouettes and neighbour accuracy are in the table above.",
    )  # fmt: skip
    if len(able) > VIEWS:
        yield Say(f"Not drawn: {', '.join(one.method for one in able[VIEWS:])}.", "note")


# ---- pseudo-labels ----------------------------------------------------------------------------------------


def _pseudo_labels(inputs: Inputs, kept: list[Kept]) -> Iterator[Block]:
    judged: list[tuple[Kept, int, PseudoLabels]] = []
    blocks: list[Block] = []
    for one in kept:
        epochs = sorted({int(name.split("/")[1]) for name in one.arrays if name.startswith("pseudo/")})
        for epoch in epochs:
            blocks += attempt(f"Pseudo-labels of {one.method}", partial(_judged, inputs, one, epoch, judged))
    if judged:
        yield _purity(inputs, judged)
    yield from blocks


def _judged(inputs: Inputs, one: Kept, epoch: int, judged: list[tuple[Kept, int, PseudoLabels]]) -> Iterator[Block]:
    names = ("weight", "pairs", "pseudo", "true", "labelled")
    parts = [one.arrays.get(f"pseudo/{epoch}/{name}") for name in names]
    if any(part is None for part in parts):
        raise RepresentationError(f"the arrays of epoch {epoch} are not complete.")
    weight, pairs, pseudo, true, labelled = (np.asarray(part) for part in parts)
    batches = [weighted_labels(*batch) for batch in zip(weight, pairs, pseudo, true, labelled, strict=True)]
    classes = sorted({*np.unique(true).tolist(), *np.unique(pseudo).tolist()})
    found = judge(batches, [int(c) for c in classes])
    judged.append((one, epoch, found))
    what = f"{one.method} on {one.dataset}, {percent(one.label_ratio)}, epoch {epoch}"
    yield picture(
        inputs, _key(weight, pairs, pseudo, true, labelled), lambda: draw_confusion(found, title=what),
        name=f"pseudo-{file_name(what)}", caption=f"Pseudo-labels (Robult, Figure 9): {what}",
        alt=f"Two confusion matrices of {what}: purity {found.purity_before:.3f} of all pseudo-labels, "
            f"{found.purity_after:.3f} without low weights.",
    )  # fmt: skip


def _purity(inputs: Inputs, judged: list[tuple[Kept, int, PseudoLabels]]) -> Grid:
    rows = []
    for one, epoch, found in judged:
        link = _place(inputs, one)
        low, high = float(found.null.min()), float(found.null.max())
        numbers = [
            number(int(found.before.sum())), number(found.purity_before), number(found.purity_after),
            Value(f"{low:.3f} to {high:.3f}", found.null_mean), number(found.auroc),
        ]  # fmt: skip
        linked = (Value(v.text, v.sort, v.mark, link if v.sort is not None else "") for v in numbers)
        rows.append((Value(one.method), number(one.seed), number(epoch), *linked))
    heads = ("method", "seed", "epoch", "pairs", "right", "right without low weights", "as many dropped at random",
             "AUROC of the weight")  # fmt: skip
    notes = tuple(dict.fromkeys(f"{one.method}: {found.note}." for one, _, found in judged if found.note))
    return Grid("Share of right pseudo-labels", tuple((head,) for head in heads), 1, tuple(rows), notes)


# ---- proximity --------------------------------------------------------------------------------------------

PROXIMITY = {
    "method": "method", "modality": "modality", "reading": "reading", "n_anchors": "anchors", "qq_r": "Q-Q r",
    "skew": "skewness", "kurtosis": "excess kurtosis", "rejected_shapiro": "rejected (Shapiro-Wilk)",
    "rejected_anderson": "rejected (Anderson-Darling)", "best_normal": "normal fits best",
    "best_lognormal": "log-normal", "best_beta": "beta",
}  # fmt: skip


def _proximity(inputs: Inputs, kept: list[Kept]) -> Iterator[Block]:
    able = [one for one in kept if base_method(one.method) == "robult" and one.tau > 0 and FUSED in _named(one)]
    if not able:
        return
    yield from attempt("Proximity", lambda: _proximity_table(inputs, able))
    yield from attempt("Q-Q plot of proximities", lambda: _normality(inputs, able[0]))


def _proximity_table(inputs: Inputs, able: list[Kept]) -> Iterator[Block]:
    parts = []
    for one in able:
        fused, single = fused_and_single(one.method, _named(one))
        key = _key(fused, *single.values(), one.arrays["group"], what="proximity", tau=one.tau, anchors=MAX_ANCHORS)
        part = inputs.cache.frame(
            key,
            lambda one=one, fused=fused, single=single: proximity_frame(  # type: ignore[misc]
                fused, single, one.arrays["group"], one.tau, max_anchors=MAX_ANCHORS
            ),
        )
        parts.append(part.assign(method=one.method, link=_place(inputs, one)))
    frame = pd.concat(parts, ignore_index=True)
    problems = [
        f"{row['method']}, {row['modality']}: {row['problem']}" for row in frame.to_dict("records") if row["problem"]
    ]
    if "reading" not in frame:
        raise RepresentationError(" ".join(problems))
    shown = frame[frame["reading"].notna()]
    columns = {name: head for name, head in PROXIMITY.items() if name in shown}
    yield grid_of(
        shown, "Normality of proximities of positive pairs", columns=columns, n_stubs=3, links=shown["link"].tolist(),
        shown={"n_anchors": lambda n: number(float(n), 0)},
        notes=["Medians over anchors; 'rejected' is the share of anchors at level 5%, about 0.05 for normal data; "
               "'fits best' is the share of anchors by AIC. cosine: of s and z; phi: exp(cosine / tau).", *problems],
    )  # fmt: skip


def _normality(inputs: Inputs, one: Kept) -> Iterator[Block]:
    fused, single = fused_and_single(one.method, _named(one))
    groups = one.arrays["group"]
    what = f"{one.method} on {one.dataset}, {percent(one.label_ratio)}"

    def draw() -> Any:
        proximities = {modality_of(m): positive_proximity(fused, z, groups, one.tau) for m, z in single.items()}
        return draw_normality(proximities, title=what, colour=inputs.styles[one.method].edge, max_anchors=MAX_ANCHORS)

    key = _key(fused, *single.values(), groups, tau=one.tau, style=repr(inputs.styles[one.method]))
    yield picture(inputs, key, draw, name=f"proximity-{file_name(what)}", caption=f"Normal Q-Q plots: {what}")
