"""Build, train and measure the models that Derma-Semantics serves."""
