"""The code that runs inside Triton: engine, configuration, integrity, audit log."""
