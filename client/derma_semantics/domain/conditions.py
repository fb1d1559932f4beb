"""The seven conditions of HAM10000 / ISIC 2018 Task 3, in the challenge's order.

    from derma_semantics.domain.conditions import CONDITIONS, by_code
    by_code("MEL").name        # 'melanoma'
    [c.code for c in CONDITIONS]

Everything that depends on the set of conditions (tensor widths, labels, risk
masks, ground-truth columns) derives from the tuple ``CONDITIONS``.

Sources: Tschandl et al., Sci Data 5, 180161 (2018) for the classes; the
definitions paraphrase the standard dermoscopic criteria (Kittler et al.,
J Am Acad Dermatol 74, 1093 (2016), third consensus on dermoscopic terms).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class RiskLevel(StrEnum):
    """How a condition counts towards ``RISK``."""

    BENIGN = "benign"
    PREMALIGNANT = "premalignant"
    HIGH = "high"


@dataclass(frozen=True)
class Condition:
    """One diagnosis class.

    Attributes:
        code: ISIC 2018 Task 3 column name.
        name: what a person reads.
        ham10000_dx: value of ``dx`` in ``HAM10000_metadata.csv``.
        marmal88_dx: value of ``dx`` in the hub data set ``marmal88/skin_cancer``.
        snomed: SNOMED CT concept of a disorder, where one means the same; None for classes
            that join several disorders, and where none is known for sure.
        risk: HIGH and PREMALIGNANT conditions add up to ``RISK``, once weighed by prevalence.
        prompts: text definitions; their normalised embeddings are averaged.
    """

    code: str
    name: str
    ham10000_dx: str
    marmal88_dx: str
    snomed: str | None
    risk: RiskLevel
    prompts: tuple[str, ...] = field(repr=False)

    @property
    def malignant(self) -> bool:
        """Whether the condition is malignant or pre-malignant."""
        return self.risk is not RiskLevel.BENIGN


CONDITIONS: tuple[Condition, ...] = (
    Condition(
        "MEL",
        "melanoma",
        "mel",
        "melanoma",
        "93655004",
        RiskLevel.HIGH,
        (
            "a dermoscopy image of melanoma, a malignant tumour of melanocytes",
            "an asymmetric pigmented lesion with irregular borders and several colours",
            "an atypical pigment network with irregular streaks, dots and globules",
            "a blue-white veil with regression structures in a dark lesion",
            "malignant melanoma with shiny white structures and atypical vessels",
            "melanoma, a dangerous skin cancer that can spread",
            "a black or dark brown patch, lopsided, with a ragged outline, that has changed",
            "off-centre blotches, pseudopods and radial streaks at the edge",
        ),
    ),
    Condition(
        "NV",
        "melanocytic nevus",
        "nv",
        "melanocytic_Nevi",
        "400096001",
        RiskLevel.BENIGN,
        (
            "a dermoscopy image of a melanocytic nevus, a benign mole",
            "a symmetric brown lesion with a regular pigment network and even borders",
            "regular globules of one colour in a round mole",
            "a homogeneous brown or blue naevus that fades at its edge",
            "a common mole with one or two shades of brown",
            "a benign naevus, a harmless birthmark or mole of pigment cells",
            "a round or oval brown spot, the same on both sides, with a smooth outline",
            "a reticular or globular pattern that repeats evenly across the lesion",
        ),
    ),
    Condition(
        "BCC",
        "basal cell carcinoma",
        "bcc",
        "basal_cell_carcinoma",
        "254701007",
        RiskLevel.HIGH,
        (
            "a dermoscopy image of basal cell carcinoma, a malignant tumour of basal cells",
            "arborizing vessels on a pearly pink background",
            "blue-gray ovoid nests, leaf-like areas and spoke-wheel structures",
            "a shiny translucent nodule with sharp branching vessels and ulceration",
            "a pink plaque with short fine telangiectasia and multiple small erosions",
            "basal cell carcinoma, the most common and slowly growing skin cancer",
            "a shiny pink or pearly bump with thin branching blood vessels",
            "blue-gray globules and concentric structures without a pigment network",
        ),
    ),
    Condition(
        "AKIEC",
        "actinic keratosis or Bowen's disease",
        "akiec",
        "actinic_keratoses",
        None,
        RiskLevel.PREMALIGNANT,
        (
            "a dermoscopy image of actinic keratosis, a pre-malignant patch of sun damage",
            "a strawberry pattern of red pseudonetwork around white follicles",
            "a rough scaly red patch with white and yellow surface scale",
            "Bowen's disease, an intraepithelial carcinoma with clustered glomerular vessels",
            "rosettes, keratin scale and dotted vessels on sun damaged skin",
            "actinic keratosis, a precancerous rough spot from long exposure to the sun",
            "squamous cell carcinoma in situ with coiled vessels and scale",
            "a dry, crusty, reddish patch on the face, scalp or hands",
        ),
    ),
    Condition(
        "BKL",
        "benign keratosis",
        "bkl",
        "benign_keratosis-like_lesions",
        None,
        RiskLevel.BENIGN,
        (
            "a dermoscopy image of a benign keratosis",
            "seborrheic keratosis with milia-like cysts and comedo-like openings",
            "a stuck-on waxy plaque with fissures, ridges and a sharp border",
            "solar lentigo with a moth-eaten border and fingerprint-like structures",
            "lichen planus-like keratosis with gray granular peppering",
            "a benign seborrhoeic keratosis, a harmless growth of older skin",
            "a brown warty growth with plugs, pits and a surface like a brain",
            "an age spot, flat and light brown, with a sharp scalloped edge",
        ),
    ),
    Condition(
        "DF",
        "dermatofibroma",
        "df",
        "dermatofibroma",
        None,
        RiskLevel.BENIGN,
        (
            "a dermoscopy image of a dermatofibroma, a benign fibrous nodule",
            "a central white scar-like patch with a delicate peripheral pigment network",
            "a firm brown papule with a pale centre and a fine network around it",
            "a central white network with a ring of light brown pigment",
            "a benign fibrous histiocytoma that dimples when pinched",
            "dermatofibroma, a harmless hard bump of scar-like tissue",
            "a small firm nodule on the leg, pale in the middle and brown around",
            "a white scar-like centre with a faint peripheral network",
        ),
    ),
    Condition(
        "VASC",
        "vascular lesion",
        "vasc",
        "vascular_lesions",
        None,
        RiskLevel.BENIGN,
        (
            "a dermoscopy image of a vascular lesion",
            "red, purple or blue-black lacunae separated by pale septa",
            "an angioma with well defined red lagoons",
            "an angiokeratoma with dark lacunae and a whitish veil",
            "a pyogenic granuloma or haemorrhage, homogeneous and red, without pigment network",
            "a benign vascular lesion made of blood vessels, such as a haemangioma",
            "a bright red or purple spot full of blood, harmless",
            "red lagoons, clotted dark lacunae and no melanin pattern",
        ),
    ),
)

CODES: tuple[str, ...] = tuple(condition.code for condition in CONDITIONS)


def by_code(code: str) -> Condition:
    """The condition with this ISIC code.

    Raises:
        ValueError: no condition has that code.
    """
    for condition in CONDITIONS:
        if condition.code == code:
            return condition
    raise ValueError(f"unknown condition {code!r}: expected one of {', '.join(CODES)}")
