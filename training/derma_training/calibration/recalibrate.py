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

from derma_training.bundle import Bundle, Calibration, write_calibration
from derma_training.bundle.folders import reseal
from derma_training.bundle.split import part_of, split_names, trained_names
from derma_training.calibration.card import recalibrated_card
from derma_training.calibration.scaling import (
    BY_HAND,
    EARLIER,
    NOT_HELD_OUT,
    NOWHERE,
    TRAINING,
    Scaling,
    prevalence_of,
)
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
    prevalence_from: str = BY_HAND,
    targets: Targets = DEFAULTS,
) -> Bundle:
    """Choose thresholds on ``examples``, one a lesion, and seal the bundle with them.

    Temperature and biases stay: thresholds are guaranteed only on images that did not fit them.

    Args:
        name: what the examples are, for the report.
        prevalence: how frequent conditions are, in the order of ``CODES``, from elsewhere than
            ``examples`` for the same reason; by default as the bundle has it.
        prevalence_from: where that is from, for the report; the bundle's own keeps its record.

    Returns:
        The bundle under its new digest. Metrics stay those of the old calibration.
    """
    examples = one_a_lesion(examples)
    probabilities, _ = answers(bundle, examples)
    old = bundle.calibration
    # Bundles of older code fitted their temperature where they chose their thresholds.
    fitted_on = old.report.get("scaling_fitted_on", "the bundle's calibration part")
    scaling = Scaling(
        old.temperature,
        tuple(old.biases),
        fitted_on,
        tuple(prevalence or old.frequencies),
        prevalence_from if prevalence else _known_from(old),
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


def missing_prevalence(bundle: Bundle, images: Sequence[Example]) -> tuple[tuple[float, ...] | None, str]:
    """How frequent conditions are where the bundle does not say so, and where that is from.

    Counted among ``images`` that its split names as training, or where it names none among all that it
    does not hold out. None where the bundle has a prevalence, or nothing can be counted.

    Raises:
        ValueError: ``images`` lack some of its calibration part.
    """
    if (known := _known_from(bundle.calibration)) != NOWHERE:
        return None, known
    trained, named = trained_names(bundle), split_names(bundle)
    train = [e for e in images if (e.name in trained if trained else e.name not in named)]
    parts = Parts(train, calibration=part_of(bundle, images, "calibration"))
    return prevalence_among(parts), TRAINING if trained else NOT_HELD_OUT


def _known_from(calibration: Calibration) -> str:
    """Older code kept no record; equal shares were none that anybody counted."""
    counted = len(set(calibration.frequencies)) > 1
    return str(calibration.report.get("prevalence_from", EARLIER if counted else NOWHERE))


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
