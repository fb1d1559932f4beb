"""Calibrating a sealed bundle anew: for other targets, or for a clinic's own images.

    bundle = Bundle.open("training/bundles/derma-mini")
    examples = part_of(bundle, read(data), "calibration")
    bundle = recalibrate(bundle, examples, name="the bundle's calibration part")
    bundle.digest                       # new: export it again

The weights stay as they are. Killed at any moment, it leaves the old bundle or the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from derma_training.bundle import Bundle, write_calibration
from derma_training.bundle.folders import reseal
from derma_training.bundle.split import split_names
from derma_training.calibration.card import recalibrated_card
from derma_training.calibration.scaling import BY_HAND, EARLIER, Scaling, prevalence_of
from derma_training.calibration.targets import DEFAULTS, Targets
from derma_training.calibration.thresholds import calibrate
from derma_training.data import Example, Parts, labels
from derma_training.evaluate import answers

CARD = "MODEL_CARD.md"


def recalibrate(
    bundle: Bundle,
    examples: Sequence[Example],
    *,
    name: str,
    prevalence: Sequence[float] | None = None,
    targets: Targets = DEFAULTS,
) -> Bundle:
    """Choose thresholds on ``examples``, one a lesion, and seal the bundle with them.

    The temperature stays: thresholds are guaranteed only on images that did not fit them.

    Args:
        name: what the examples are, for the report.
        prevalence: how frequent conditions are, in the order of ``CODES``, from elsewhere than
            ``examples`` for the same reason; by default as the bundle has it.

    Returns:
        The bundle under its new digest. Metrics stay those of the old calibration.
    """
    examples = one_a_lesion(examples)
    probabilities, _ = answers(bundle, examples)
    old = bundle.calibration
    scaling = Scaling(
        old.temperature,
        old.report.get("scaling_fitted_on", "nothing"),
        tuple(prevalence or old.frequencies),
        BY_HAND if prevalence else old.report.get("prevalence_from", EARLIER),
    )
    truth = labels(examples).numpy()
    calibration = calibrate(probabilities, truth, scaling, name=name, targets=targets)

    def change(draft: Path) -> None:
        write_calibration(draft, calibration)
        if (draft / CARD).is_file():
            (draft / CARD).write_text(recalibrated_card((draft / CARD).read_text(), calibration))

    return reseal(bundle, change)


def prevalence_among(parts: Parts) -> tuple[float, ...] | None:
    """How frequent conditions are among the training lesions of those that calibrate; None without any."""
    sources = {example.source for example in parts.calibration}
    same = one_a_lesion(example for example in parts.train if example.source in sources)
    return prevalence_of(labels(same).numpy()) if same else None


def one_a_lesion(examples: Iterable[Example]) -> list[Example]:
    """The first image of each lesion: two of the same would count as independent evidence."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.lesion, example)
    return list(first.values())


def everything_of(examples: Sequence[Example], bundle: Bundle) -> list[Example]:
    """All examples, if they come from elsewhere than the bundle's training images.

    Raises:
        ValueError: they hold images of the bundle's own split, so training has seen the rest.
    """
    known = split_names(bundle)
    if shared := [e.name for e in examples if e.name in known]:
        raise ValueError(
            f"{len(shared)} of these images, e.g. {shared[0]}, belong to the data that {bundle.name} was "
            "made from, and training saw the rest: leave out --all to use its calibration part"
        )
    return list(examples)
