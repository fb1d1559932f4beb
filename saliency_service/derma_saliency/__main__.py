"""``python -m derma_saliency`` is ``derma-saliency``."""

from derma_saliency.cli import main

if __name__ == "__main__":
    main(prog_name="derma-saliency")
