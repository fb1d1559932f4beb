"""derma-train: train, inspect and measure the models that are served.

    derma-train fit training/configs/derma-mini.toml --data ISIC2018 --start vit_tiny.safetensors --out mine
    derma-train prompts mine --data ISIC2018
    derma-train evaluate training/bundles/derma-mini --data ISIC2018
    derma-train compare training/bundles/derma-mini mine
    derma-train calibrate training/bundles/derma-mini --data ISIC2018 --sensitivity 0.9
    derma-train quality training/bundles/derma-mini --data ISIC2018
    derma-train judge-quality training/bundles/derma-mini --data ISIC2018 --others PHOTOGRAPHS --out report
    derma-train info training/bundles/derma-mini
    derma-train data ISIC2018 HAM10000 marmal88/skin_cancer
    derma-train fetch-base biomedclip
    derma-train keygen derma.key
    derma-train sign training/bundles/derma-mini --key derma.key

Each command has a --help of its own.
"""

from __future__ import annotations

import logging

import click

from derma_semantics.commands.terminal import help_text, require_extra
from derma_training.commands.calibrate import calibrate
from derma_training.commands.data import report_data
from derma_training.commands.fit import fetch_base, fit
from derma_training.commands.measure import compare, evaluate, info, prompts
from derma_training.commands.quality import judge_quality, quality
from derma_training.commands.signing import keygen, sign

COMMANDS = (
    *(fit, prompts, evaluate, compare, calibrate, quality, judge_quality),
    *(info, report_data, fetch_base, keygen, sign),
)


@click.group(help=help_text(__doc__))
def main() -> None:
    logging.getLogger().setLevel(logging.ERROR)
    require_extra("train", "open_clip")


for command in COMMANDS:
    main.add_command(command)
