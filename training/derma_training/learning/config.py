"""One typed TOML file a run: everything that decides the weights, but no path.

    config = load("training/configs/derma-mini.toml", ["phases.0.epochs=2", "split.fold=1"])
    config.phases[0].learning_rate
    (run / "training.toml").write_text(dump(config))

An unknown setting, a wrong type or a value out of range is refused with its name.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from derma_semantics.domain.regular import read_regular


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


class Augmentation(_Table):
    """Random changes to a training image; dermoscopy has no upright.

    Attributes:
        crop: least share of the area that a crop keeps, enlarged to full size.
        flips: mirror and turn by quarters.
        rotation: largest turn in degrees on top of that; corners are filled by reflection.
        color_jitter: strength of changes to brightness, contrast and saturation.
        channel_gain: strength of a change to each channel: light of another colour.
    """

    crop: float = Field(0.5, gt=0, le=1)
    flips: bool = True
    rotation: float = Field(0.0, ge=0, le=180)
    color_jitter: float = Field(0.2, ge=0, lt=1)
    channel_gain: float = Field(0.0, ge=0, lt=1)


class Phase(_Table):
    """One stretch of training; its method decides what trains.

    Attributes:
        name: stem of its files.
        epochs: an epoch draws as many images as the training part has.
        batch_size: images a step, over all processes and accumulated batches together.
        gradient_accumulation: batches that one step adds up.
        learning_rate: peak of a cosine schedule with linear warm-up.
        warmup: share of the steps.
        max_grad_norm: gradients are scaled down to it; 0 leaves them.
        sampling_power: images of a condition with n examples are drawn in proportion to n**sampling_power:
            1 as they come, 0 every condition alike. The loss adjusts logits for it (arXiv 2007.07314).
        ema_decay: of the averaged weights a step; 0 keeps the last weights.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    epochs: int = Field(ge=1)
    batch_size: int = Field(32, ge=2)
    gradient_accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    sampling_power: float = Field(0.5, ge=0, le=1)
    ema_decay: float = Field(0.0, ge=0, lt=1)

    @property
    def networks(self) -> list[str]:
        """Names of those that are trained, in order."""
        return [self.name]


class ImagePhase(Phase):
    """The image tower trains, on images that are changed at random.

    Attributes:
        layer_decay: factor on the learning rate from each block to the one below it.
        head_lr_mult: factor on the learning rate of the projections, which start at random.
        mixup_alpha: of the Beta distribution that blends pairs of images, each by its own share; 0 for none
            (arXiv 1710.09412).
    """

    layer_decay: float = Field(1.0, gt=0, le=1)
    head_lr_mult: float = Field(1.0, gt=0)
    mixup_alpha: float = Field(0.0, ge=0)
    augmentation: Augmentation = Augmentation()


class FullPhase(ImagePhase):
    """Every tensor of the image tower and the projections train.

    Attributes:
        soup_size: networks that train from the same start, on images drawn in other orders; the result is
            the mean of their weights (model soups, arXiv 2203.05482).
    """

    method: Literal["full"]
    soup_size: int = Field(1, ge=1)

    @property
    def networks(self) -> list[str]:
        if self.soup_size == 1:
            return [self.name]
        return [f"{self.name}-{number + 1}" for number in range(self.soup_size)]


class LoraPhase(ImagePhase):
    """PEFT's LoRA adapters on the blocks of a frozen image tower train (arXiv 2106.09685).

    Attributes:
        r: rank of the update.
        lora_alpha: the update is scaled by ``lora_alpha / r``.
    """

    method: Literal["lora"]
    r: int = Field(32, ge=1)
    lora_alpha: int = Field(64, ge=1)


class WordsPhase(Phase):
    """The projection of texts and the scale train; images are embedded once (LiT, arXiv 2111.07991).

    Attributes:
        text_noise: length of the noise on texts, as a share of theirs: it stands for other words that mean
            the same (CapDec, arXiv 2211.00575).
    """

    method: Literal["words"]
    max_grad_norm: float = Field(0.0, ge=0)
    text_noise: float = Field(0.0, ge=0)


METHODS: dict[str, type[Phase]] = {"full": FullPhase, "lora": LoraPhase, "words": WordsPhase}
AnyPhase = Annotated[FullPhase | LoraPhase | WordsPhase, Field(discriminator="method")]


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
    phases: tuple[AnyPhase, ...]

    @model_validator(mode="after")
    def _follow_each_other(self) -> Config:
        if not self.phases:
            raise ValueError("phases is empty: nothing would train")
        methods = [phase.method for phase in self.phases]
        if "lora" in methods and set(methods[methods.index("lora") + 1 :]) - {"words"}:
            raise ValueError("only words may follow a lora phase: its adapters rest on finished weights")
        names = [name for phase in self.phases for name in phase.networks]
        if len(set(names)) < len(names):
            raise ValueError("two phases, or networks of one, have the same name")
        return self


def load(path: str | Path, changes: Sequence[str] = ()) -> Config:
    """Read a file and apply changes such as ``phases.0.epochs=3``.

    Raises:
        ValueError: names the file, the setting and what is wrong with it.
    """
    try:
        content = tomllib.loads(read_regular(path).decode())
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{path} is not TOML: {exc}") from exc
    for change in changes:
        _apply(content, change)
    try:
        return Config.model_validate(content)
    except ValidationError as exc:
        problems = "; ".join(_problem(e["loc"], e["type"], e["msg"]) for e in exc.errors())
        raise ValueError(f"{path}: {problems}") from exc


def dump(config: Config) -> str:
    """The whole configuration as TOML, defaults included."""
    return tomli_w.dumps(config.model_dump(mode="json"))


def _problem(place: tuple[int | str, ...], kind: str, message: str) -> str:
    """One mistake under the name that the file or ``--set`` gives to its setting."""
    table: type[_Table] = Config
    for part in place[:-1]:
        if part in METHODS:
            table = METHODS[str(part)]
        elif part != "phases" and isinstance(part, str):
            table = cast(type[_Table], table.model_fields[part].annotation)
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(place[-1]), table.model_fields, n=1)
        known = f"did you mean {close[0]}?" if close else f"known are {', '.join(table.model_fields)}"
        message = f"unknown setting; {known}"
    if kind == "union_tag_not_found":
        message = f"method is missing: expected one of {', '.join(METHODS)}"
    return f"{'.'.join(str(part) for part in place if part not in METHODS)}: {message}"


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
