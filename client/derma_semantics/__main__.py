"""``python -m derma_semantics`` is ``derma``."""

from derma_semantics.commands.cli import main

if __name__ == "__main__":
    main(prog_name="derma")
