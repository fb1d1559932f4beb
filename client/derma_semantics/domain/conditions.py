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
from enum import Enum, StrEnum, auto


class RiskLevel(StrEnum):
    """How a condition counts towards ``RISK``."""

    BENIGN = "benign"
    PREMALIGNANT = "premalignant"
    HIGH = "high"


class ConformalGroup(Enum):
    """Conditions that share a threshold of the prediction sets, in the order of reports.

    Melanoma and nevus are groups of their own, so that the frequent nevus cannot pay for missed
    melanomas; the rare conditions share groups, because a threshold of one's own takes 19 examples
    at 0.95, and is coarse below a hundred.
    """

    MELANOMA = auto()
    CARCINOMA = auto()
    NEVUS = auto()
    OTHER = auto()


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One diagnosis class.

    Attributes:
        code: ISIC 2018 Task 3 column name.
        name: what a person reads.
        ham10000_dx: value of ``dx`` in ``HAM10000_metadata.csv``.
        marmal88_dx: value of ``dx`` in the hub data set ``marmal88/skin_cancer``.
        isic2017: ISIC 2017 Part 3 column name; "" where all its columns hold 0, None where it is not in it.
        isic2019: ISIC 2019 column name.
        snomed: SNOMED CT concept of a disorder, where one means the same; None for classes
            that join several disorders, and where none is known for sure.
        risk: HIGH and PREMALIGNANT conditions add up to ``RISK``, once weighed by prevalence.
        group: of the conformal prediction sets.
        prompts: text definitions; their normalised embeddings are averaged.
        paraphrases: other wordings that are never trained on. The k-th of all conditions are of one kind:
            name, plain words, dermoscopy, pathology, a question.
    """

    code: str
    name: str
    ham10000_dx: str
    marmal88_dx: str
    isic2017: str | None
    isic2019: str
    snomed: str | None
    risk: RiskLevel
    group: ConformalGroup
    prompts: tuple[str, ...] = field(repr=False)
    paraphrases: tuple[str, ...] = field(repr=False)

    @property
    def malignant(self) -> bool:
        """Whether the condition is malignant or pre-malignant."""
        return self.risk is not RiskLevel.BENIGN


CONDITIONS: tuple[Condition, ...] = (
    Condition(
        code="MEL",
        name="melanoma",
        ham10000_dx="mel",
        marmal88_dx="melanoma",
        isic2017="melanoma",
        isic2019="MEL",
        snomed="93655004",
        risk=RiskLevel.HIGH,
        group=ConformalGroup.MELANOMA,
        prompts=(
            "a dermoscopy image of melanoma, a malignant tumour of melanocytes",
            "an asymmetric pigmented lesion with irregular borders and several colours",
            "an atypical pigment network with irregular streaks, dots and globules",
            "a blue-white veil with regression structures in a dark lesion",
            "malignant melanoma with shiny white structures and atypical vessels",
            "melanoma, a dangerous skin cancer that can spread",
            "a black or dark brown patch, lopsided, with a ragged outline, that has changed",
            "off-centre blotches, pseudopods and radial streaks at the edge",
        ),
        paraphrases=(
            "melanoma",
            "a dangerous dark spot with ragged edges and many colors, a deadly skin cancer",
            "dermoscopy reveals an irregular network, radial streaming, pseudopods and a bluish-white haze",
            "cancerous proliferation of pigment cells invading the skin",
            "does this lesion look like a malignant melanoma?",
        ),
    ),
    Condition(
        code="NV",
        name="melanocytic nevus",
        ham10000_dx="nv",
        marmal88_dx="melanocytic_Nevi",
        isic2017="",
        isic2019="NV",
        snomed="400096001",
        risk=RiskLevel.BENIGN,
        group=ConformalGroup.NEVUS,
        prompts=(
            "a dermoscopy image of a melanocytic nevus, a benign mole",
            "a symmetric brown lesion with a regular pigment network and even borders",
            "regular globules of one colour in a round mole",
            "a homogeneous brown or blue naevus that fades at its edge",
            "a common mole with one or two shades of brown",
            "a benign naevus, a harmless birthmark or mole of pigment cells",
            "a round or oval brown spot, the same on both sides, with a smooth outline",
            "a reticular or globular pattern that repeats evenly across the lesion",
        ),
        paraphrases=(
            "melanocytic nevus",
            "an ordinary harmless mole, evenly brown and round",
            "dermoscopy reveals a uniform reticular pattern that thins out towards the periphery",
            "benign proliferation of pigment cells in nests",
            "does this lesion look like a normal mole?",
        ),
    ),
    Condition(
        code="BCC",
        name="basal cell carcinoma",
        ham10000_dx="bcc",
        marmal88_dx="basal_cell_carcinoma",
        isic2017=None,
        isic2019="BCC",
        snomed="254701007",
        risk=RiskLevel.HIGH,
        group=ConformalGroup.CARCINOMA,
        prompts=(
            "a dermoscopy image of basal cell carcinoma, a malignant tumour of basal cells",
            "arborizing vessels on a pearly pink background",
            "blue-gray ovoid nests, leaf-like areas and spoke-wheel structures",
            "a shiny translucent nodule with sharp branching vessels and ulceration",
            "a pink plaque with short fine telangiectasia and multiple small erosions",
            "basal cell carcinoma, the most common and slowly growing skin cancer",
            "a shiny pink or pearly bump with thin branching blood vessels",
            "blue-gray globules and concentric structures without a pigment network",
        ),
        paraphrases=(
            "basal cell carcinoma",
            "a pearly pink bump with visible blood vessels, a slowly growing skin cancer",
            "dermoscopy reveals tree-like vessels, bluish ovoid clusters and maple-leaf-like structures",
            "cancerous proliferation of basal keratinocytes in nests with peripheral palisading",
            "does this lesion look like a basal cell cancer?",
        ),
    ),
    Condition(
        code="AKIEC",
        name="actinic keratosis or Bowen's disease",
        ham10000_dx="akiec",
        marmal88_dx="actinic_keratoses",
        isic2017=None,
        isic2019="AK",
        snomed=None,
        risk=RiskLevel.PREMALIGNANT,
        group=ConformalGroup.CARCINOMA,
        prompts=(
            "a dermoscopy image of actinic keratosis, a pre-malignant patch of sun damage",
            "a strawberry pattern of red pseudonetwork around white follicles",
            "a rough scaly red patch with white and yellow surface scale",
            "Bowen's disease, an intraepithelial carcinoma with clustered glomerular vessels",
            "rosettes, keratin scale and dotted vessels on sun damaged skin",
            "actinic keratosis, a precancerous rough spot from long exposure to the sun",
            "squamous cell carcinoma in situ with coiled vessels and scale",
            "a dry, crusty, reddish patch on the face, scalp or hands",
        ),
        paraphrases=(
            "actinic keratosis or intraepithelial carcinoma",
            "a dry, crusty, sandpaper-like spot caused by years of sun, not yet cancer",
            "dermoscopy reveals a reddish network around hair follicles, scale and coiled vessels",
            "atypical keratinocytes confined to the epidermis of sun-exposed skin",
            "does this lesion look like a solar keratosis or Bowen disease?",
        ),
    ),
    Condition(
        code="BKL",
        name="benign keratosis",
        ham10000_dx="bkl",
        marmal88_dx="benign_keratosis-like_lesions",
        isic2017="seborrheic_keratosis",
        isic2019="BKL",
        snomed=None,
        risk=RiskLevel.BENIGN,
        group=ConformalGroup.OTHER,
        prompts=(
            "a dermoscopy image of a benign keratosis",
            "seborrheic keratosis with milia-like cysts and comedo-like openings",
            "a stuck-on waxy plaque with fissures, ridges and a sharp border",
            "solar lentigo with a moth-eaten border and fingerprint-like structures",
            "lichen planus-like keratosis with gray granular peppering",
            "a benign seborrhoeic keratosis, a harmless growth of older skin",
            "a brown warty growth with plugs, pits and a surface like a brain",
            "an age spot, flat and light brown, with a sharp scalloped edge",
        ),
        paraphrases=(
            "benign keratosis-like lesion",
            "a waxy wart-like growth of older people that seems glued on the skin, harmless",
            "dermoscopy reveals white cysts, dark plugged openings, and a brain-like surface",
            "benign thickening of the epidermis with horn cysts, or a sun-induced lentigo",
            "does this lesion look like a seborrhoeic keratosis or an age spot?",
        ),
    ),
    Condition(
        code="DF",
        name="dermatofibroma",
        ham10000_dx="df",
        marmal88_dx="dermatofibroma",
        isic2017=None,
        isic2019="DF",
        snomed=None,
        risk=RiskLevel.BENIGN,
        group=ConformalGroup.OTHER,
        prompts=(
            "a dermoscopy image of a dermatofibroma, a benign fibrous nodule",
            "a central white scar-like patch with a delicate peripheral pigment network",
            "a firm brown papule with a pale centre and a fine network around it",
            "a central white network with a ring of light brown pigment",
            "a benign fibrous histiocytoma that dimples when pinched",
            "dermatofibroma, a harmless hard bump of scar-like tissue",
            "a small firm nodule on the leg, pale in the middle and brown around",
            "a white scar-like centre with a faint peripheral network",
        ),
        paraphrases=(
            "dermatofibroma",
            "a small hard brownish bump, often on the leg, that sinks in when squeezed, harmless",
            "dermoscopy reveals a whitish central area surrounded by a faint pigmented network",
            "benign proliferation of fibroblasts and histiocytes in the dermis",
            "does this lesion look like a fibrous histiocytoma?",
        ),
    ),
    Condition(
        code="VASC",
        name="vascular lesion",
        ham10000_dx="vasc",
        marmal88_dx="vascular_lesions",
        isic2017=None,
        isic2019="VASC",
        snomed=None,
        risk=RiskLevel.BENIGN,
        group=ConformalGroup.OTHER,
        prompts=(
            "a dermoscopy image of a vascular lesion",
            "red, purple or blue-black lacunae separated by pale septa",
            "an angioma with well defined red lagoons",
            "an angiokeratoma with dark lacunae and a whitish veil",
            "a pyogenic granuloma or haemorrhage, homogeneous and red, without pigment network",
            "a benign vascular lesion made of blood vessels, such as a haemangioma",
            "a bright red or purple spot full of blood, harmless",
            "red lagoons, clotted dark lacunae and no melanin pattern",
        ),
        paraphrases=(
            "vascular lesion of the skin",
            "a cherry-red or purple spot made of blood vessels, harmless",
            "dermoscopy reveals sharply demarcated reddish or violet lagoons without pigment structures",
            "benign proliferation of dilated blood vessels, or bleeding into the skin",
            "does this lesion look like a haemangioma or a blood spot?",
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
