"""Where data sets are found."""

from datasets.base import DataSet
from datasets.registry import Entry, Registry

DATASETS = Registry(
    noun="data set",
    base=DataSet,  # type: ignore[type-abstract]
    group="robult_bench.datasets",
    builtin={
        "digits": Entry("datasets.digits:Digits", "scikit-learn's 8x8 digits, upper and lower half as two modalities"),
        "synthetic": Entry(
            "datasets.synthetic:Synthetic", "redundancy, uniqueness and synergy dialled in and known exactly"
        ),
        "handwritten": Entry(
            "datasets.handwritten:Handwritten", "UCI handwritten numerals in six views, as TMC splits them (one file)"
        ),
        "cmu_mosi": Entry(
            "datasets.cmu_mosi:CmuMosi",
            "sentiment of 2199 opinions on film: text, audio, vision (one pickle of MulT, MultiBench or MMSA)",
        ),
        "cmu_mosei": Entry(
            "datasets.cmu_mosei:CmuMosei",
            "sentiment of 22,777 opinions: text, audio, vision (one pickle of MulT, MultiBench or MMSA)",
        ),
    },
)
