"""Build, train and measure the models that Derma-Semantics serves."""

import os

# The hub's library would otherwise ask huggingface.co for more than files, also where a mirror is given.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
