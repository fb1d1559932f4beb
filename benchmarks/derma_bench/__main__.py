"""``python -m derma_bench`` is ``derma-bench``."""

from derma_bench.cli import main

if __name__ == "__main__":
    main()
