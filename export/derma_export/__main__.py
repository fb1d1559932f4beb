"""``python -m derma_export`` is ``derma-export``."""

from derma_export.cli import main

if __name__ == "__main__":
    main(prog_name="derma-export")
