"""Curves: metric against label ratio, against corruption and hyper-parameters, and training by epoch."""

from collections.abc import Callable, Iterator
from functools import partial

from analysis.curves import (
    Drawing,
    draw_corruptions,
    draw_label_ratios,
    draw_sensitivity,
    draw_sizes,
    draw_training,
    find_sweeps,
)
from analysis.files import frame_key
from analysis.sections.base import Block, Head, Inputs, Picture, Say, Section, attempt, picture
from analysis.sections.results import file_name
from analysis.subset_means import means_by_number
from analysis.tables import percent


def curves_section(inputs: Inputs) -> Section:
    """What can be drawn over an axis, data set by data set; what cannot is told once, at the end."""
    blocks: list[Block] = []
    without: list[str] = []
    for dataset in map(str, inputs.summary["dataset"].unique()):
        own: list[Block] = []
        for what, make in _drawings(inputs, dataset):
            own += attempt(what, partial(_drawn, inputs, what, make, without))
        blocks += [Head(dataset), *own] if own else []
    if without:
        blocks.append(Say(f"Not drawn: {' '.join(without)}", "note"))
    return Section("curves", "Label ratio, corruption, hyper-parameters and training", tuple(blocks))


Make = Callable[[], Drawing]


def _drawings(inputs: Inputs, dataset: str) -> Iterator[tuple[str, Make]]:
    """What is tried, by name; training curves at the smallest label ratio, for each figure of them takes seconds."""
    summary, checkpoint, styles = inputs.summary, inputs.checkpoint, inputs.styles
    part = summary[summary["dataset"] == dataset]
    ratios = [float(ratio) for ratio in part["label_ratio"].unique()]
    yield f"{dataset}: metric against label ratio", lambda: draw_label_ratios(summary, dataset, checkpoint, styles)
    if (part["corruption"] == "").any() and part["n_modalities"].max() > 2:
        means = means_by_number(inputs.frame, dataset, checkpoint)
        yield f"{dataset}: metric against number of modalities", partial(draw_sizes, means, dataset, checkpoint, styles)
    for ratio in ratios if (part["corruption"] != "").any() else []:
        yield (
            f"{dataset}: metric against corruption, {percent(ratio)} of the labels",
            partial(draw_corruptions, summary, dataset, ratio, checkpoint, styles),
        )
    for sweep in find_sweeps([str(name) for name in part["method"].unique()]):
        keys = " and ".join(sweep.keys)
        yield (
            f"{dataset}: {sweep.base} by {keys}",
            partial(draw_sensitivity, summary, dataset, sweep, checkpoint),
        )
    curves = inputs.curves
    if curves is not None and (curves["dataset"] == dataset).any():
        ratio = float(curves.loc[curves["dataset"] == dataset, "label_ratio"].min())
        yield (
            f"{dataset}: training by epoch, {percent(ratio)} of the labels",
            partial(draw_training, curves, dataset, ratio, styles),
        )


def _drawn(inputs: Inputs, what: str, make: Make, without: list[str]) -> Iterator[Block]:
    """The figure with what must be said of it; or nothing, and why among `without`."""
    found: Drawing | None = None

    def draw() -> "Drawing":
        nonlocal found
        found = make() if found is None else found
        return found

    figure = _cached(inputs, what, draw)
    if isinstance(figure, str):
        without.append(figure)
        return
    yield figure[0]
    if figure[1]:
        yield Say(figure[1], "note")


def _cached(inputs: Inputs, what: str, draw: Make) -> tuple[Picture, str] | str:
    """The picture and its words, drawn only where the same was not drawn before; or why there is none."""
    key = "|".join([
        what, inputs.checkpoint, frame_key(inputs.summary), repr(sorted(inputs.styles.items())),
        "" if inputs.curves is None or "training by epoch" not in what else frame_key(inputs.curves),
    ])  # fmt: skip
    words = inputs.cache.bytes(f"words|{key}", lambda: _words(draw())).decode()
    drawn, _, text = words.partition("\n")
    if drawn == "no":
        return text

    def figure() -> object:
        made = draw().figure
        assert made is not None
        return made

    name = f"curve-{file_name(what)}"
    return picture(inputs, key, figure, name=name, caption=what), text  # type: ignore[arg-type]


def _words(drawing: Drawing) -> bytes:
    return f"{'no' if drawing.figure is None else 'yes'}\n{drawing.words}".encode()
