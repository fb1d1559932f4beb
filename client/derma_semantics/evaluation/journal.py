"""Answers on disk, one JSON object a line, so that an interrupted evaluation goes on.

    journal = Journal(Path("answers.jsonl"), digest, names)
    journal.append({"ISIC_0024306": diagnosis})
    journal.records["ISIC_0024306"]["probabilities"]["MEL"]

All answers of a journal come from the same weights and belong to the same images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from derma_semantics.diagnosis import Diagnosis

Record = dict[str, Any]


class Journal:
    """The answers so far.

    Args:
        path: the file; it need not exist.
        digest: the bundle's, whose answers belong here.
        names: the images that are asked about.

    Raises:
        ValueError: the file holds answers of another bundle, or to other images, or is damaged.
    """

    def __init__(self, path: Path, digest: str, names: Collection[str]) -> None:
        self.path = path
        self.digest = digest
        self.records: dict[str, Record] = {}
        for record in self._read() if path.exists() else ():
            self._same(began=record["bundle_digest"], now=digest)
            self.records[record["image"]] = record
        if foreign := sorted(self.records.keys() - set(names)):
            raise ValueError(
                f"{path} holds answers to {len(foreign)} images that are not in the ground truth, "
                f"e.g. {foreign[0]}: give another --out"
            )

    def append(self, answers: Mapping[str, Diagnosis]) -> None:
        """Keep these answers, on the disk before it returns.

        Raises:
            ValueError: one comes from another bundle, as in a roll-out.
        """
        with self.path.open("a") as file:
            for name, answer in answers.items():
                self._same(began=self.digest, now=answer.bundle.digest)
                record = {"image": name, **answer.to_dict()}
                self.records[name] = record
                file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _same(self, *, began: str, now: str) -> None:
        if began != now:
            raise ValueError(
                f"{self.path} holds answers of bundle {began[:12]}, but the service now answers with "
                f"{now[:12]}: one evaluation measures one bundle, so give another --out"
            )

    def _read(self) -> list[Record]:
        """All records; a last line that a kill cut short is cut off."""
        whole, _, rest = self.path.read_bytes().rpartition(b"\n")
        if rest:
            self.path.write_bytes(whole + b"\n" if whole else b"")
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except json.JSONDecodeError as exc:
            raise ValueError(f"{self.path} is damaged ({exc}): give another --out") from exc
