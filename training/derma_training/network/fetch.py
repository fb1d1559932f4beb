"""Download BiomedCLIP from the Hugging Face hub into the layout that ``build_model`` reads."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download

from derma_training.bundle import BundleError, sha256


@dataclass(frozen=True)
class HubFile:
    """One file of a hub repository and where it belongs; ``sha256`` where it is known."""

    repository: str
    name: str
    target: str
    sha256: str | None = None


BIOMEDCLIP = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
BIOMEDBERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
FILES = (
    HubFile(BIOMEDCLIP, "open_clip_config.json", "open_clip_config.json"),
    HubFile(BIOMEDBERT, "config.json", "text/config.json"),
    HubFile(BIOMEDCLIP, "tokenizer.json", "text/tokenizer.json"),
    HubFile(BIOMEDCLIP, "tokenizer_config.json", "text/tokenizer_config.json"),
    HubFile(BIOMEDCLIP, "special_tokens_map.json", "text/special_tokens_map.json"),
    HubFile(BIOMEDCLIP, "vocab.txt", "text/vocab.txt"),
    HubFile(
        BIOMEDCLIP,
        "open_clip_pytorch_model.bin",
        "open_clip_pytorch_model.bin",
        "52cc993c5c5ff962bd0c60931874bc001e7e9b41666a385530f4a036294576be",
    ),
)


def fetch_base(folder: Path, *, files: tuple[HubFile, ...] = FILES, endpoint: str | None = None) -> None:
    """Download and check every file; a file that is there and right is left alone.

    An interrupted download continues where it stopped.

    Args:
        endpoint: another hub than huggingface.co, e.g. a mirror.

    Raises:
        BundleError: a file does not have the sha256 it should have; it is removed.
        OSError: the hub cannot be reached.
    """
    for file in files:
        target = folder / file.target
        if target.is_file() and (file.sha256 is None or sha256(target) == file.sha256):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        cache = folder / ".download"
        source = hf_hub_download(file.repository, file.name, local_dir=cache, endpoint=endpoint)
        _check(Path(source), file)
        shutil.move(source, target)
    shutil.rmtree(folder / ".download", ignore_errors=True)


def _check(path: Path, file: HubFile) -> None:
    if file.sha256 and (actual := sha256(path)) != file.sha256:
        path.unlink()
        raise BundleError(f"{file.repository}/{file.name} has sha256 {actual}, expected {file.sha256}")
