"""One table of all answers, as Parquet, CSV or JSON lines.

    write_table(Path("results.parquet"), journal.records(), embeddings=False)

A row has image, condition, the seven probabilities by code, risk, triage, high_risk,
prediction_set, quality, bundle, bundle_digest, precision, version and, on request, the embedding.
JSON lines keep the nesting of ``derma classify --json``. In CSV, a name that a spreadsheet would
take for a formula begins with an apostrophe; see ``cells``.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from derma_semantics.bulk.cells import cell
from derma_semantics.bulk.journal import REPORT, STAMP, Record
from derma_semantics.bulk.sources import printable
from derma_semantics.domain.conditions import CODES

ROW_GROUP = 4096
LISTS = ("prediction_set", "quality")
AFTER = ("risk", "triage", "high_risk", *LISTS, "bundle", "bundle_digest", "precision", "version")
COLUMNS = ("image", "condition", *CODES, *AFTER)


def check_table(path: Path, *, embeddings: bool) -> None:
    """Raise before the work what would otherwise be raised after it.

    Raises:
        ValueError: the suffix is none of .parquet, .csv, .jsonl, or CSV is to hold embeddings.
        ImportError: Parquet needs pyarrow.
        FileNotFoundError: the folder does not exist.
    """
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(_WRITERS)}")
    if path.suffix == ".csv" and embeddings:
        raise ValueError(f"{path}: CSV cannot hold embeddings, .parquet and .jsonl can")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ImportError("Parquet needs pyarrow: pip install 'derma-semantics[table]'")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")


def write_table(path: Path, records: Iterable[Record], *, embeddings: bool) -> None:
    """Write all records; ``path`` appears, or is replaced, at once and complete."""
    draft = path.with_name(f".{path.name}.part")
    rows = (_decoded(record) if embeddings else record for record in map(_printable, records))
    try:
        with draft.open("wb") as file:
            _WRITERS[path.suffix](file, rows, embeddings)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise


def packed(embedding: NDArray[np.float32]) -> str:
    """An embedding as journals hold it: a quarter of the size of its digits."""
    return base64.b64encode(embedding.astype("<f4").tobytes()).decode()


def _decoded(record: Record) -> Record:
    return {**record, "embedding": np.frombuffer(base64.b64decode(record["embedding"]), "<f4")}


def _printable(record: Record) -> Record:
    """Without what only the journal needs; the name as text."""
    kept = {key: value for key, value in record.items() if key not in (STAMP, REPORT)}
    kept.setdefault("quality", [])  # which older journals lack
    return {**kept, "image": printable(record["image"])}


def _flat(record: Record) -> list[Any]:
    probabilities = record["probabilities"]
    values = (record["image"], record["condition"], *(probabilities[code] for code in CODES))
    return [*values, *(record[column] for column in AFTER)]


def _write_jsonl(file: IO[bytes], records: Iterator[Record], embeddings: bool) -> None:
    for record in records:
        file.write(json.dumps(record, default=np.ndarray.tolist).encode() + b"\n")


def _write_csv(file: IO[bytes], records: Iterator[Record], embeddings: bool) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    rows.writerows(map(cell, _flat(record)) for record in records)
    text.flush()
    text.detach()  # the file stays open for its owner


def _write_parquet(file: IO[bytes], records: Iterator[Record], embeddings: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = dict.fromkeys((*CODES, "risk"), pa.float32())
    kinds |= {"high_risk": pa.bool_(), **dict.fromkeys(LISTS, pa.list_(pa.string()))}
    fields = [(column, kinds.get(column, pa.string())) for column in COLUMNS]
    schema = pa.schema([*fields, *([("embedding", pa.list_(pa.float32()))] if embeddings else [])])
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(records, ROW_GROUP)):
            columns = list(zip(*map(_flat, group), strict=True))
            if embeddings:
                columns.append(tuple(record["embedding"] for record in group))
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


_WRITERS: dict[str, Callable[[IO[bytes], Iterator[Record], bool], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
