"""Data sets of dermoscopic photographs as one table, without duplicates, split by lesion.

examples = deduplicate(read("ISIC2018"))
parts = split_by_lesion(examples, seed=0)
pixels = load_pixels(downsample(parts.train))       # uint8 (N, 224, 224, 3)
"""

from derma_training.data.audit import Audit, Overlap, audit
from derma_training.data.audit_text import summary
from derma_training.data.balance import class_counts, downsample
from derma_training.data.duplicates import Duplicates, deduplicate, find_duplicates
from derma_training.data.readers import read, read_isic2018
from derma_training.data.split import Parts, Shares, check_disjoint, given_parts, split_by_lesion
from derma_training.data.table import Example, labels, load_pixels, pick

__all__ = [
    "Audit",
    "Duplicates",
    "Example",
    "Overlap",
    "Parts",
    "Shares",
    "audit",
    "check_disjoint",
    "class_counts",
    "deduplicate",
    "downsample",
    "find_duplicates",
    "given_parts",
    "labels",
    "load_pixels",
    "pick",
    "read",
    "read_isic2018",
    "split_by_lesion",
    "summary",
]
