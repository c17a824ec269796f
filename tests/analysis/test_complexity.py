"""Cost tables: the paper's layout, conventions in every header, and no silent mix of configurations."""

import pandas as pd
import pytest

from analysis.complexity import COLUMNS, QUANTITIES, TABLE_5, complexity_table, si, subset_table
from datasets.errors import UserError


def cost(method: str, modalities: str, flops: int, **more: object) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(COLUMNS, 0)
    row |= {"dataset": "mosi", "method": method, "modalities": modalities, "device": "cpu", "threads": 1}
    row |= {"inference_flops": flops, "inference_macs": flops // 2, "batch_size": 8, "step_flops": 24 * flops}
    return row | {"total_parameters": 1_460_000, "inference_latency_ms": 2.0} | more


def frame() -> pd.DataFrame:
    return pd.DataFrame([
        cost("robult", "text+audio", 1_080_000_000),
        cost("robult", "text", 900_000_000),
        cost("gmc", "text", 800_000_000),
        cost("gmc", "text+audio", 26_560_000, total_parameters=888_320),
        cost("gmc", "text+audio", 26_560_000, total_parameters=888_320, inference_latency_ms=4.0),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.08e9, "1.08 G"), (507.44e6, "507.44 M"), (888320, "888.32 K"), (999_999, "1.00 M"), (640, "640"), (0, "0"),
     (0.5, "0.50"), (2e12, "2.00 T"), (float("nan"), "—")],
)  # fmt: skip
def test_counts_are_printed_as_in_the_paper(value: float, text: str) -> None:
    assert si(value) == text


def test_the_layout_of_table_5() -> None:
    table = complexity_table(frame(), ["gmc", "robult", "raml"], TABLE_5)
    assert list(table.columns) == ["gmc", "robult", "raml"]
    assert list(table.index) == [("mosi", QUANTITIES[name]) for name in TABLE_5]
    assert table["robult"].tolist() == ["1.08 G", "540.00 M", "1.46 M"]
    assert table["gmc"].tolist() == ["26.56 M", "13.28 M", "888.32 K"]
    assert table["raml"].tolist() == ["—"] * 3


def test_every_header_says_its_convention() -> None:
    for name, words in QUANTITIES.items():
        if "flops" in name:
            assert "2 per MAC" in words
            assert "sample" in words
        if "macs" in name:
            assert "multiply-adds" in words
    table = complexity_table(frame())
    assert table.loc[("mosi", QUANTITIES["step_flops_per_sample"]), "robult"] == "3.24 G"
    assert table.loc[("mosi", QUANTITIES["inference_latency_ms"]), "gmc"] == "3"  # median of 2 and 4


def test_by_subset() -> None:
    table = subset_table(frame(), "inference_flops")
    assert table.loc[("mosi", "text"), "gmc"] == "800.00 M"
    assert list(table.index) == [("mosi", "text+audio"), ("mosi", "text")]


def test_hostile_frames_are_told() -> None:
    with pytest.raises(UserError, match="lacks the columns: threads"):
        complexity_table(frame().drop(columns="threads"))
    with pytest.raises(UserError, match="no costs"):
        complexity_table(frame().iloc[:0])
    with pytest.raises(UserError, match="no quantity 'speed'"):
        subset_table(frame(), "speed")
    mixed = pd.DataFrame([cost("robult", "text", 10), cost("robult", "text", 20)])
    with pytest.raises(UserError, match="robult on mosi with text has costs that disagree"):
        complexity_table(mixed)
