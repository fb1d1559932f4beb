"""Ask about each image once, and write one table when all are answered.

    tally = Tally()
    run_bulk(client, images(["photos/"]), Path("results.csv"), tally)

Answers go to ``results.csv.journal`` as they come, so the same call goes on where an earlier
one stopped, however it ended. Images that fail are listed in ``results.csv.errors.csv`` and asked
again by the next call. The table is written, and the journal removed, at the very end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from derma_semantics.bulk.failures import Failures, Skipped
from derma_semantics.bulk.journal import REPORT, Journal, stamp
from derma_semantics.bulk.reports import NotReported, unreported
from derma_semantics.bulk.table import packed, write_table
from derma_semantics.client import DermaClient
from derma_semantics.domain.contract import MAX_BATCH
from derma_semantics.domain.diagnosis import Diagnosis, ServedBundle
from derma_semantics.domain.errors import AccessDenied, DeadlineExceeded, ServiceError, ServiceUnavailable

# So many images in a row that ran out of time, or met a failing server, are not at fault themselves.
LATE_IN_A_ROW = 16


Outcome: TypeAlias = Diagnosis | Exception


@dataclass
class Tally:
    """What a run did so far.

    Attributes:
        answered: images answered by this call.
        resumed: those that an earlier call had answered.
        elsewhere: of these, how many are not among the images of this call; they are kept.
        failed: images without an answer, listed in the errors file.
        unreported: images whose answer has no report, listed there too.
        complete: whether the table is written.
    """

    answered: int = 0
    resumed: int = 0
    elsewhere: int = 0
    failed: int = 0
    unreported: int = 0
    complete: bool = False
    bundle: ServedBundle | None = None


def run_bulk(
    client: DermaClient,
    names: Iterable[str],
    out: Path,
    tally: Tally,
    *,
    embeddings: bool = False,
    reports: Path | None = None,
    skipped: Skipped | None = None,
    in_flight: int = MAX_BATCH,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Classify ``names`` into ``out``; see ``check_table`` for what is best checked before.

    Args:
        names: paths, each once, pulled as they are needed.
        tally: kept up to date, also when this raises.
        embeddings: whether rows have the embedding.
        reports: a folder for a DICOM structured report of every DICOM image. Where one cannot be
            written, the answer is kept all the same.
        skipped: where ``names`` leaves what it passes over; begun anew.
        in_flight: images under way at a time; the default fills one of the server's batches.
        progress: told how many more images are done.

    Raises:
        ServiceUnavailable, DeadlineExceeded, AccessDenied: the service went away, or no longer
            serves this caller; what was answered is kept.
        ValueError: the journal belongs to another bundle or another process, the service
            changed its bundle on the way, or an image is not the one that was answered before.
    """
    tally.bundle = client.bundle()
    with (
        Journal(journal_of(out), tally.bundle.digest) as journal,
        Failures(errors_of(out)) as failures,
        skipped or nullcontext(),
    ):
        _check_embeddings(journal, embeddings)
        _list_unreported(journal, failures, tally)
        tally.resumed = tally.elsewhere = len(journal.names)
        stamps: dict[str, str | None] = {}
        todo = _missing(names, journal, stamps, tally, progress)
        try:
            with closing(client.classify_many(todo, in_flight=in_flight)) as answers:
                for name, answer in _patient(answers):
                    file = stamps.pop(name)
                    if isinstance(answer, Diagnosis):
                        more = {"embedding": packed(answer.embedding)} if embeddings else {}
                        if reports and (failed := unreported(Path(name), answer, reports)):
                            failures.add(name, failed)
                            tally.unreported += 1
                            more[REPORT] = str(failed)
                        journal.append(name, answer, file=file, **more)
                        tally.answered += 1
                    else:
                        failures.add(name, answer)
                        tally.failed += 1
                    progress(1)
        except BaseException:
            # Ctrl-C may come between an answer's line and its count.
            tally.answered = journal.count() - tally.resumed
            raise
        journal.sync()
        write_table(out, journal.records(), embeddings=embeddings)
        journal.remove()
    tally.complete = True


def _patient(answers: Iterable[tuple[str, Outcome]]) -> Iterator[tuple[str, Outcome]]:
    """Pass on what is the image's own; raise what every further image would meet."""
    late = 0
    for name, answer in answers:
        if isinstance(answer, (ServiceUnavailable, AccessDenied)):
            raise answer
        if isinstance(answer, (DeadlineExceeded, ServiceError)):
            late += 1
            if late == LATE_IN_A_ROW:
                raise answer
        else:
            late = 0
        yield name, answer


def journal_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.journal")


def errors_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.errors.csv")


def skipped_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.skipped.csv")


def _missing(
    names: Iterable[str],
    journal: Journal,
    stamps: dict[str, str | None],
    tally: Tally,
    progress: Callable[[int], object],
) -> Iterator[str]:
    """Names without an answer; their files are stamped before they are read."""
    for name in names:
        file = stamp(name)
        if name not in journal.names:
            stamps[name] = file
            yield name
            continue
        if journal.names[name] not in (file, None):  # journals of before files were stamped have none
            raise ValueError(
                f"{name} is not the file that {journal.path} has the answer of: it was changed, or this "
                "run began in another folder. Remove the journal to begin anew, or give another --out"
            )
        tally.elsewhere -= 1
        progress(1)


def _list_unreported(journal: Journal, failures: Failures, tally: Tally) -> None:
    """What earlier calls could not report: those images are not asked again."""
    for record in journal.records():
        if REPORT in record:
            failures.add(record["image"], NotReported(record[REPORT]))
            tally.unreported += 1


def _check_embeddings(journal: Journal, embeddings: bool) -> None:
    """All rows have one or none has."""
    for record in journal.records():
        if ("embedding" in record) != embeddings:
            begun, other = ("without", "with") if embeddings else ("with", "without")
            raise ValueError(
                f"{journal.path} was begun {begun} embeddings and cannot go on {other} them: "
                "remove it to begin anew, or give another --out"
            )
        return
