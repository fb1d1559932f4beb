"""RISK and its thresholds in digits.

significant(0.0083996)      # '0.008399'
significant(0.7)            # '0.7000'
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

import numpy as np

DIGITS = 4


def significant(value: float) -> str:
    """Four significant digits of a number in [0, 1], without an exponent.

    Thresholds have no more and are exact. Others are rounded down, so that a RISK reads as its threshold
    or more only where fp32, in which the network compares the two, says so as well.
    """
    exact = Decimal(str(np.float32(value)))  # the shortest number that fp32 takes for this one
    if not exact:
        return "0"
    last = Decimal(1).scaleb(exact.adjusted() - DIGITS + 1)
    return f"{exact.quantize(last, ROUND_DOWN):f}"
