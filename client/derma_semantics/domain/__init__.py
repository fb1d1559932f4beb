"""Conditions, contract, diagnosis and errors: what every part agrees on."""
