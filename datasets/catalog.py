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
        "iemocap": Entry(
            "datasets.iemocap:Iemocap",
            "four emotions in 5531 utterances: audio, vision, text (the MMIN project's folder), ten folds",
        ),
        "mm_imdb": Entry(
            "datasets.mm_imdb:MMIMDb",
            "film posters and plots, 23 genres, multi-label (raw folder, Arrow files or the GMU HDF5 file)",
        ),
        "food101": Entry(
            "datasets.food101:Food101",
            "UPMC Food-101: photos and page titles of 101 dishes (raw folder or Arrow files)",
        ),
        "hateful_memes": Entry(
            "datasets.hateful_memes:HatefulMemes",
            "memes: image and caption, hateful or not; AUROC (raw folder or Arrow files)",
        ),
        "n24news": Entry("datasets.n24news:N24News", "New York Times pictures and texts, 24 sections (raw folder)"),
        "transfer": Entry(
            "datasets.transfer:Transfer",
            "trained on one data set, tested on another; features aligned by PCA, or by t-SNE as Robult does",
        ),
        "own": Entry(
            "datasets.own:Own",
            "a folder of your own: data.yaml and .npy, .npz, .parquet or .safetensors files, no code",
        ),
    },
)
