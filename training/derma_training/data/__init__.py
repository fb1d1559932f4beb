"""Data sets of dermoscopic photographs as one table, without duplicates, split by lesion.

examples = deduplicate(read("ISIC2018"))
parts = split_by_lesion(examples, seed=0)
pixels = load_pixels(parts.train)       # uint8 (N, 224, 224, 3)
"""

from derma_training.data.duplicates import deduplicate
from derma_training.data.readers import read
from derma_training.data.split import Parts, Shares, check_disjoint, split_by_lesion
from derma_training.data.table import Example, labels, load_pixels, pick

__all__ = [
    "Example",
    "Parts",
    "Shares",
    "check_disjoint",
    "deduplicate",
    "labels",
    "load_pixels",
    "pick",
    "read",
    "split_by_lesion",
]
