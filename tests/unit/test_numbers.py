"""RISK in digits: never on the wrong side of a threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_semantics.domain.numbers import significant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1.000"),
        (0.99999, "0.9999"),
        (0.5, "0.5000"),
        (0.0084, "0.008400"),
        (0.0083996, "0.008399"),
        (1.2345678e-9, "0.000000001234"),
        (float(np.float32(0.7)), "0.7000"),  # 0.699999988
    ],
)
def test_by_hand(value, text):
    assert significant(value) == text


@given(st.integers(1, 9999), st.integers(4, 15), st.integers(-2, 2))
def test_digits_say_what_fp32_decides(digits, decimals, steps):
    """Of a threshold of at most four digits and its neighbours in fp32."""
    threshold = float(f"{digits}e-{decimals}")
    risk = np.float32(threshold)
    for _ in range(abs(steps)):
        risk = np.nextafter(risk, np.float32(np.sign(steps)))
    assert float(significant(threshold)) == threshold
    assert (float(significant(float(risk))) >= threshold) == (risk >= np.float32(threshold))
