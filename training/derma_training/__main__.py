"""``python -m derma_training`` is ``derma-train``: what ``torchrun -m`` needs."""

from derma_training.cli import main

if __name__ == "__main__":
    main(prog_name="derma-train")
