"""What a model card says of the data set that a model was trained on: its people, its labels, its licence."""

from dataclasses import dataclass
from pathlib import Path

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class DataTerms:
    """The sentences of one data set.

    Attributes:
        people: whom the model is not for, as the data lack them.
        labels: where its labels come from.
        licence: what that means for the weights.
        notice: file with the text that has to go with the weights; None where none is known.
    """

    people: str
    labels: str
    licence: str
    notice: Path | None = None


HAM10000 = DataTerms(
    people=(
        "People whom the data lack. HAM10000 shows mostly fair skin, from Austria and Australia. "
        "Darker skin is rare in it, and so are people younger than 20."
    ),
    labels=(
        "As published, a little more than half of its images have a label from histopathology, "
        "the others from follow-up, from the consensus of experts, or from confocal microscopy."
    ),
    licence=(
        "The weights were trained on HAM10000 (Tschandl et al. 2018, doi:10.1038/sdata.2018.161), "
        "which is under CC BY-NC 4.0: they may be used non-commercially, with attribution. "
        "`LICENSE-DATA.md` is the notice that goes with them."
    ),
    notice=_TEMPLATES / "ham10000_notice.md",
)
SYNTHETIC = DataTerms(
    people="Any image of a person. The model has seen drawings alone.",
    labels="The lesions were drawn by dermdistill, and their labels are what was to be drawn.",
    licence="The weights were trained on drawn lesions. They are good for nothing but tests.",
)
UNKNOWN = DataTerms(
    people="People whom the data lack. Who they are is not recorded here.",
    labels="Where its labels come from is not recorded here.",
    licence=(
        "The weights were trained on data whose terms are not known here: "
        "read them before you use the weights or pass them on. "
        "The training data of ISIC challenges hold HAM10000, which is under CC BY-NC 4.0."
    ),
)
# By the source in the catalog.
KNOWN = {"HAM10000": HAM10000}


def is_synthetic(source: str) -> bool:
    """Whether a source's name says that its lesions were drawn."""
    return "synthetic" in source.lower()


def terms_of(source: str) -> DataTerms:
    """The sentences of a catalog's source."""
    return SYNTHETIC if is_synthetic(source) else KNOWN.get(source, UNKNOWN)
