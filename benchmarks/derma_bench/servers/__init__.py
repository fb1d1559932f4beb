"""The servers under measurement: ours, variants of it, the baseline, the public peer."""
