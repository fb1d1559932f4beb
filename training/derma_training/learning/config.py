"""One typed TOML file a run: everything that decides the weights, but no path.

    config = load("training/configs/derma-mini.toml", ["phases.0.epochs=2", "split.fold=1"])
    config.phases[0].learning_rate
    (run / "training.toml").write_text(dump(config))

An unknown key, a wrong type or a value out of range is refused with its name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Share = Annotated[float, Field(ge=0, lt=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(_Table):
    """Shares of each condition's lesions by part; the rest trains.

    Attributes:
        seed: shuffles the lesions of each condition.
        fold: rotates the shuffled lesions, so that folds 0 to 4 test every lesion once.
        target: the source that these parts are of, e.g. "ISIC 2018"; other sources only train, but
            for their test share, which is the part ``other``. Empty: all sources alike.
        from_start: keep the parts of the bundle that training starts from; what it did not hold out trains.
    """

    seed: int = 0
    fold: int = Field(0, ge=0)
    test: float = Field(0.2, gt=0, lt=1)
    calibration: float = Field(0.1, gt=0, lt=1)
    validation: float = Field(0.1, ge=0, lt=1)
    target: str = ""
    from_start: bool = False


class Balance(_Table):
    """How unequal conditions are met.

    Attributes:
        max_nevi: nevi kept for training, 0 for all. Other conditions stay whole.
        sampling: images of a condition with n examples are drawn in proportion to n**sampling:
            1 as they come, 0 every condition alike.
        rare: conditions with fewer training images than this get the ``rare`` augmentation.
    """

    max_nevi: int = Field(0, ge=0)
    sampling: float = Field(0.5, ge=0, le=1)
    rare: int = Field(0, ge=0)


class Augmentation(_Table):
    """Random changes to a training image; dermoscopy has no upright.

    Attributes:
        crop: least share of the area that a crop keeps, enlarged to full size.
        flips: mirror and turn by quarters.
        rotation: largest turn in degrees on top of that; corners are filled by reflection.
        jitter: strength of changes to brightness, contrast and saturation.
        gain: strength of a change to each channel: light of another colour.
    """

    crop: float = Field(0.5, gt=0, le=1)
    flips: bool = True
    rotation: float = Field(0.0, ge=0, le=180)
    jitter: float = Field(0.2, ge=0, lt=1)
    gain: float = Field(0.0, ge=0, lt=1)


class Lora(_Table):
    """PEFT's LoRA on the transformer blocks of the image tower, and of the text tower."""

    r: int = Field(32, ge=1)
    alpha: int = Field(64, ge=1)
    text: bool = False


class Phase(_Table):
    """One stretch of training.

    Attributes:
        name: stem of its files.
        method: ``full`` trains every tensor of the image tower and the projections, ``lora`` adapters
            on frozen weights, ``words`` only the projection of texts, on images as they are: see ``words``.
        loss: see ``losses``.
        epochs: an epoch draws as many images as the training part has.
        batch_size: images a step, over all processes and accumulated batches together.
        accumulate: batches that one step adds up.
        learning_rate: peak of a cosine schedule with linear warm-up.
        layer_decay: factor on the learning rate from each block to the one below it.
        fresh: factor on the learning rate of the projections, which start at random.
        patch_dropout: share of patches left out (FLIP, arXiv 2212.00794); none in the last
            ``whole`` share of the steps.
        mixup: alpha of the Beta distribution that blends pairs of images, each by its own share; 0 for none
            (arXiv 1710.09412); only with loss ``definitions``.
        text_noise: length of the noise on texts, as a share of theirs; only with method ``words``.
        ema: decay of the averaged weights a step; 0 keeps the last weights.
        soup: networks that train from the same start, on images drawn in other orders; the result is the mean
            of their weights (model soups, arXiv 2203.05482).
        teachers: networks that train first, from the same start on images drawn in other orders. The result
            is one more, which learns from what they answer together: see ``losses.distillation``.
        taught: share of the loss that comes from them.
        softness: temperature at which their answers are compared.
        wise: share of the starting weights in the result (WiSE-FT, arXiv 2109.01903).
        patience: epochs without a better balanced accuracy on validation before it stops and
            goes back to the best; 0 runs to the end.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    method: Literal["full", "lora", "words"] = "full"
    loss: Literal["definitions", "unicl", "clip"] = "definitions"
    epochs: int = Field(ge=1)
    batch_size: int = Field(32, ge=2)
    accumulate: int = Field(1, ge=1)
    learning_rate: float = Field(gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    fresh: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    patch_dropout: Share = 0.0
    whole: float = Field(0.1, ge=0, le=1)
    mixup: float = Field(0.0, ge=0)
    text_noise: float = Field(0.0, ge=0)
    ema: Share = 0.0
    soup: int = Field(1, ge=1)
    teachers: int = Field(0, ge=0)
    taught: float = Field(0.8, gt=0, le=1)
    softness: float = Field(2.0, gt=0)
    wise: Share = 0.0
    patience: int = Field(0, ge=0)
    lora: Lora = Lora()
    balance: Balance = Balance()
    augmentation: Augmentation = Augmentation()
    rare_augmentation: Augmentation = Augmentation(crop=0.3, rotation=45, jitter=0.3, gain=0.1)

    @property
    def names(self) -> list[str]:
        """One for each network that is trained, in order; behind teachers the phase's own is the last."""
        if self.soup > 1:
            return [f"{self.name}-{number + 1}" for number in range(self.soup)]
        return [*(f"{self.name}-teacher-{number + 1}" for number in range(self.teachers)), self.name]


class Config(_Table):
    """A run.

    Attributes:
        name: of the bundle.
        base: ``mini`` for the ViT-Tiny sibling, or ``biomedclip`` for the hub's model.
        precision: of the forward pass (autocast).
        seed: of everything random in training; the split has its own.
    """

    name: str
    base: Literal["mini", "biomedclip"]
    seed: int = 0
    precision: Literal["no", "bf16"] = "bf16"
    split: Split = Split()
    phases: tuple[Phase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _adapters_come_last(self) -> Config:
        methods = [phase.method for phase in self.phases]
        if "lora" in methods and set(methods[methods.index("lora") + 1 :]) - {"words"}:
            raise ValueError("only words may follow a lora phase: its adapters rest on finished weights")
        names = [name for phase in self.phases for name in phase.names]
        if len(set(names)) < len(names):
            raise ValueError("two phases, or networks of one, have the same name")
        if any(
            phase.teachers and (phase.method, phase.loss) != ("full", "definitions") for phase in self.phases
        ):
            raise ValueError("teachers are for method full and loss definitions")
        if any(phase.method != "full" and phase.soup > 1 for phase in self.phases):
            raise ValueError("soup is for method full: factors of adapters have no mean, and words are cheap")
        if any(phase.teachers and phase.soup > 1 for phase in self.phases):
            raise ValueError("a phase has teachers or a soup, not both")
        if any(phase.mixup and phase.loss != "definitions" for phase in self.phases):
            raise ValueError("mixup is for loss definitions: set it to 0 for the others")
        if any(phase.method == "lora" and phase.wise for phase in self.phases):
            raise ValueError("wise interpolates weights; a lora phase has only factors of them")
        if any(phase.method != "words" and phase.text_noise for phase in self.phases):
            raise ValueError("text_noise is for method words")
        return self


def load(path: str | Path, changes: Sequence[str] = ()) -> Config:
    """Read a file and apply changes such as ``phases.0.epochs=3``.

    Raises:
        ValueError: names the file, the key and what is wrong with it.
    """
    try:
        content = tomllib.loads(Path(path).read_text())
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{path} is not TOML: {exc}") from exc
    for change in changes:
        _apply(content, change)
    try:
        return Config.model_validate(content)
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        raise ValueError(f"{path}: {problems}") from exc


def dump(config: Config) -> str:
    """The whole configuration as TOML, defaults included."""
    return tomli_w.dumps(config.model_dump(mode="json"))


def _apply(content: dict[str, Any], change: str) -> None:
    """Set one value, in place; the value is read as TOML, else as a string."""
    key, separator, text = change.partition("=")
    if not separator:
        raise ValueError(f"{change!r} is not key=value, e.g. phases.0.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.split(".")
    place: Any = content
    try:
        for name in path:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        place[last] = value
    except (IndexError, TypeError, ValueError, AttributeError) as exc:
        raise ValueError(f"{key} names no setting: {exc}") from exc
