"""From a trained network's answers to probabilities, triage and prediction sets that keep a promise."""
