"""The commands of ``derma-bench``: thin, and light until they run."""
