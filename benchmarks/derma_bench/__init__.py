"""Measure Derma-Semantics: the service, the engine, decoding; every figure is one command.

    derma-bench service --against baseline --out .run/bench/service.json
    derma-bench report .run/bench/service.json --out .run/bench/report

Each command has a package, and its name; `derma-bench --help` lists them.
"""
