"""Critical-difference diagrams: what is drawn is what was tested, all of it is legible, and the same every time."""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis.figures import method_styles, render
from analysis.published import published
from analysis.ranking import TESTS, Ranking, blocks_from, compare
from analysis.ranking_figures import draw_ranking
from analysis.results import METHOD_ORDER

LONG = ["robult[no_unique_branches,tau=0.3]", "prompt_trans[a_long_variant_name_here]", "x" * 90]


@cache
def table_2(test: str, *subsets: str) -> Ranking:
    printed = published("robult", "2")
    wide = printed[printed["modalities"].isin(subsets or ("text", "image", "text+image"))].pivot(
        index=["dataset", "modalities"], columns="method", values="value"
    )
    names = [str(name) for name in wide.index.get_level_values("dataset")]
    blocks = blocks_from(wide, datasets=names, told="data set x modality subset", by_metric="the metrics of Table 2")
    return compare(blocks, test)  # type: ignore[arg-type]


def many(test: str = "nemenyi", n: int = 24) -> Ranking:
    """18 methods, three with long names."""
    names = [*METHOD_ORDER[:15], *LONG]
    rng = np.random.default_rng(0)
    scores = rng.random(18) * 0.2 + 0.06 * rng.standard_normal((n, 18))
    blocks = blocks_from(pd.DataFrame(scores, columns=names), datasets=[f"set{i // 3}" for i in range(n)])
    return compare(blocks, test)  # type: ignore[arg-type]


@cache
def drawn(ranking: Ranking) -> Figure:
    figure = draw_ranking(ranking, method_styles(ranking.methods))
    FigureCanvasAgg(figure).draw()
    return figure


def boxes(figure: Figure) -> dict[str, Any]:
    return {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}


def bars(figure: Figure) -> list[Any]:
    return [line for line in figure.axes[0].lines if line.get_linewidth() == 3.2]


RANKINGS: dict[str, Callable[[], Ranking]] = {
    "five": lambda: table_2("nemenyi"),
    "wilcoxon": lambda: table_2("wilcoxon-holm"),
    "not testable": lambda: table_2("wilcoxon-holm", "text", "image"),
    "many": many,
    "many by Conover": lambda: many("conover-holm"),
    "one block": lambda: many("nemenyi", 1),
    "two": lambda: compare(blocks_from(pd.DataFrame({"robult": np.arange(8.0), "gmc": np.arange(8.0) - 1}))),
    "equal": lambda: compare(blocks_from(pd.DataFrame(np.ones((4, 3)), columns=["robult", "gmc", "$x_1$"]))),
}


@cache
def ranking_of(name: str) -> Ranking:
    return RANKINGS[name]()


@pytest.mark.parametrize("name", RANKINGS)
def test_nothing_overlaps_or_leaves_the_page(name: str) -> None:
    figure = drawn(ranking_of(name))
    found = boxes(figure)
    page = figure.bbox
    for text, box in found.items():
        assert page.x0 <= box.x0 < box.x1 <= page.x1, text
        assert page.y0 <= box.y0 < box.y1 <= page.y1, text
    for (one, first), (other, second) in combinations(found.items(), 2):
        assert not first.overlaps(second), (one, other)


@pytest.mark.parametrize("name", RANKINGS)
def test_every_method_is_named_with_its_rank_and_marked_in_its_colour(name: str) -> None:
    ranking = ranking_of(name)
    figure, styles = drawn(ranking), method_styles(ranking.methods)
    texts = list(boxes(figure))
    faces = [to_hex(spots.get_facecolor()[0]) for spots in figure.axes[0].collections]  # type: ignore[index]
    for method in ranking.methods:
        shown = method if len(method) <= 44 else f"{method[:22]}…{method[-22:]}"
        named = [text for text in texts if {*text.split()} == {shown, f"{ranking.mean_ranks[method]:.2f}"}]
        assert len(named) == 1, method
        assert faces.count(to_hex(styles[method].face)) >= 2  # on the axis and beside the name
    places = {text: box.y0 for text, box in boxes(figure).items()}
    left = [
        next(text for text in texts if method[:20] in text)
        for method in ranking.methods[: (len(ranking.methods) + 1) // 2]
    ]
    assert [places[text] for text in left] == sorted((places[text] for text in left), reverse=True)  # best on top


@pytest.mark.parametrize("name", RANKINGS)
def test_bars_are_the_groups(name: str) -> None:
    ranking = ranking_of(name)
    figure = drawn(ranking)
    assert len(bars(figure)) == len(ranking.groups)
    dots = [spots.get_offsets() for spots in figure.axes[0].collections if spots.get_sizes()[0] == 13]  # type: ignore[attr-defined]
    assert [len(part) for part in dots] == [len(group) for group in ranking.groups]
    taken: dict[float, list[tuple[float, float]]] = {}
    for bar in bars(figure):
        (start, end), (height, _) = bar.get_xdata(), bar.get_ydata()
        for low, high in taken.setdefault(height, []):
            assert start > high or end < low
        taken[height].append((start, end))


def test_bars_are_dashed_where_nothing_could_be_tested() -> None:
    assert [bar.is_dashed() for bar in bars(drawn(table_2("wilcoxon-holm", "text", "image")))] == [True]
    assert [bar.is_dashed() for bar in bars(drawn(table_2("nemenyi")))] == [False] * 3


def test_the_critical_difference_has_its_length() -> None:
    figure = drawn(table_2("nemenyi"))
    assert "CD = 2.03" in boxes(figure)
    ticks = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts if text.get_text() in "12345"}
    cap = next(line for line in figure.axes[0].lines if line.get_linewidth() == 1.2 and line.get_ydata()[0] == -0.36)
    start, end = cap.get_xdata()
    assert (end - start) / (ticks["2"] - ticks["1"]) == pytest.approx(2.0332, abs=1e-3)
    assert not any("CD" in text for text in boxes(drawn(table_2("conover-holm"))))


@pytest.mark.parametrize("test", sorted(TESTS))
def test_the_caption_states_test_correction_blocks_and_n(test: str) -> None:
    caption = " ".join(max(boxes(drawn(table_2(test))), key=len).split())
    assert TESTS[test] in caption  # type: ignore[index]
    assert "N = 9 blocks (data set x modality subset) from 3 data sets" in caption
    assert "corrected for ties" in caption
    assert "Iman-Davenport F(4, 32) = 17.12" in caption
    assert ("Holm" in caption) == (test != "nemenyi")
    assert "not independent" in caption


def test_the_same_ranking_gives_the_same_bytes_whatever_the_users_style() -> None:
    from matplotlib import rc_context

    ranking = table_2("nemenyi")
    first = draw_ranking(ranking, method_styles(ranking.methods))
    with rc_context({"font.size": 20, "axes.facecolor": "black", "font.family": "serif"}):
        second = draw_ranking(ranking, method_styles(ranking.methods))
    for kind in ("png", "svg"):
        assert render(first, kind) == render(second, kind)  # type: ignore[arg-type]
    ElementTree.fromstring(render(first, "svg"))
    assert render(first, "png").startswith(b"\x89PNG")


def test_a_title_of_ones_own() -> None:
    ranking = table_2("nemenyi")
    figure = draw_ranking(ranking, method_styles(ranking.methods), title="A $title$ with_signs")
    assert figure.axes[0].texts[0].get_text() == "A $title$ with_signs"
    FigureCanvasAgg(figure).draw()
