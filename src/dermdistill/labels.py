"""The seven diagnoses of HAM10000 and the melanoma view of them. The only copy of names and order."""

from dataclasses import dataclass
from typing import Literal

from dermdistill.errors import DataError

Task = Literal["diagnosis", "melanoma"]


@dataclass(frozen=True)
class Diagnosis:
    """One diagnosis: its code in HAM10000, its name, and whether it is malignant or pre-malignant."""

    code: str
    name: str
    malignant: bool


DIAGNOSES: tuple[Diagnosis, ...] = (
    Diagnosis("akiec", "Actinic keratosis / Bowen's disease", True),
    Diagnosis("bcc", "Basal cell carcinoma", True),
    Diagnosis("bkl", "Benign keratosis", False),
    Diagnosis("df", "Dermatofibroma", False),
    Diagnosis("mel", "Melanoma", True),
    Diagnosis("nv", "Melanocytic nevus", False),
    Diagnosis("vasc", "Vascular lesion", False),
)
CODES: tuple[str, ...] = tuple(diagnosis.code for diagnosis in DIAGNOSES)
MELANOMA = "mel"
REST = "rest"

ALIASES: dict[str, str] = {
    **{code: code for code in CODES},
    "actinic keratosis": "akiec",
    "bowen": "akiec",
    "basal cell carcinoma": "bcc",
    "benign keratosis": "bkl",
    "dermatofibroma": "df",
    "melanoma": "mel",
    "nevus": "nv",
    "melanocytic nevus": "nv",
    "vascular lesion": "vasc",
}


def class_names(task: Task) -> tuple[str, ...]:
    """The classes of a task in the order of its logits: the seven codes, or ``("rest", "mel")``."""
    return CODES if task == "diagnosis" else (REST, MELANOMA)


def encode(code: str, task: Task) -> int:
    """The index of a diagnosis code among the classes of a task."""
    return CODES.index(code) if task == "diagnosis" else int(code == MELANOMA)


def melanoma_index(task: Task) -> int:
    """The index of the melanoma logit of a task."""
    return class_names(task).index(MELANOMA)


def parse_diagnosis(text: str) -> str:
    """The code of a diagnosis given by code or name in any case.

    Raises:
        DataError: for anything else; the message lists what is known.
    """
    code = ALIASES.get(text.strip().lower().replace("_", " "))
    if code is None:
        raise DataError(f"unknown diagnosis {text!r}", rule=f"one of {', '.join(CODES)}")
    return code
