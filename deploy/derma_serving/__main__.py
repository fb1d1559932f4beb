"""``python -m derma_serving serve`` is ``derma serve``."""

from derma_serving.launcher import main

if __name__ == "__main__":
    main(prog_name="derma")
