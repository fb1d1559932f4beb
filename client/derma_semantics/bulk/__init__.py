"""Classify very many images into one table, over interruptions.

    from derma_semantics.bulk import Tally, images, run_bulk
    with DermaClient() as client:
        run_bulk(client, images(["photos/"]), Path("results.parquet"), Tally())

What ``derma bulk`` does; see ``run_bulk``.
"""

from derma_semantics.bulk.run import Tally, run_bulk
from derma_semantics.bulk.sources import images
from derma_semantics.bulk.table import check_table

__all__ = ["Tally", "check_table", "images", "run_bulk"]
