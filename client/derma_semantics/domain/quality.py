"""What the service may notice of a photograph beside its answer, never instead of it.

    for reason in diagnosis.quality:
        print(reason.code, reason.hint)     # blur  blurred: take it again, the camera at rest

No reason is no proof of a good photograph: it means that nothing of this list was noticed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One thing that makes an answer less reliable.

    Attributes:
        code: its name in JSON and tables.
        hint: what is wrong and what to do, in plain words.
    """

    code: str
    hint: str


REASONS = (
    Reason("blur", "blurred: take it again, in focus, the camera at rest"),
    Reason("exposure", "too dark or too bright: take it again in better light"),
    Reason("small_lesion", "the lesion is small in the picture: go closer, or crop the picture to it"),
    Reason(
        "out_of_distribution",
        "unlike the dermoscopic photographs the model knows: the answer may mean nothing",
    ),
)
