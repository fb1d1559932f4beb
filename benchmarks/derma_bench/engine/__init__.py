"""One network in many engines, by turns, beside the rate at which the machine multiplies matrices."""
