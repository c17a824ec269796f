"""CMU-MOSI: sentiment of film reviews on YouTube, from the pickles of the MulT, MultiBench or MMSA project."""

from datasets.affect import Affect, Expected

SIZES = (1284, 229, 686)


class CmuMosi(Affect):
    """2199 opinion segments of 93 videos; text, audio and vision aligned to words or not, as the file has them."""

    name = "cmu_mosi"
    summary = "sentiment of 2199 opinions on film: text, audio, vision (one pickle of MulT, MultiBench or MMSA)"
    source = (
        "CMU MultiComp Lab (CMU-MultimodalSDK; Zadeh et al., 2016), processed by the MulT, MultiBench or MMSA project"
    )
    licence = "research use of features of YouTube videos; the files come without a licence, do not pass them on"
    other = ("cmu_mosei", ((16265, 1869, 4643), (16326, 1871, 4659)))
    expected = {
        "MulT": Expected((SIZES,), {"text": 300, "audio": 5, "vision": 20}),
        "MultiBench": Expected((SIZES, (1283, 214, 686)), {"text": 300, "audio": 74, "vision": 35}),
        "MMSA": Expected(
            (SIZES,),
            {"text": 768, "audio": 5, "vision": 20},
            {"train": (552, 53, 679), "valid": (92, 13, 124), "test": (379, 30, 277)},
        ),
    }
