"""The input check: what is measured of a picture, its limits, and how good it is."""
