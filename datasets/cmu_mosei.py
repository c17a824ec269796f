"""CMU-MOSEI: sentiment of monologues on YouTube, from the pickles of the MulT, MultiBench or MMSA project."""

from datasets.affect import Affect, Expected

SIZES = (16265, 1869, 4643)


class CmuMosei(Affect):
    """22,777 segments, 22,856 in MMSA's file; text, audio and vision aligned to words or not, as the file has them."""

    name = "cmu_mosei"
    summary = "sentiment of 22,777 opinions: text, audio, vision (one pickle of MulT, MultiBench or MMSA)"
    source = (
        "CMU MultiComp Lab (CMU-MultimodalSDK; Zadeh et al., 2018), processed by the MulT, MultiBench or MMSA project"
    )
    licence = "research use of features of YouTube videos; the files come without a licence, do not pass them on"
    other = ("cmu_mosi", ((1284, 229, 686), (1283, 214, 686)))
    expected = {
        "MulT": Expected((SIZES,), {"text": 300, "audio": 74, "vision": 35}),
        "MultiBench": Expected((SIZES,), {"text": 300, "audio": 74, "vision": 35}),
        "MMSA": Expected(
            ((16326, 1871, 4659),),
            {"text": 768, "audio": 74, "vision": 35},
            {"train": (4738, 3540, 8048), "valid": (506, 433, 932), "test": (1350, 1025, 2284)},
        ),
    }
