"""python -m derma_export.rollout"""

from derma_export.rollout.cli import main

main()
