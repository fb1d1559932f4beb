"""The audit log's file, written by several processes."""

import json
import multiprocessing
import re

from derma_serving.runtime.audit_log import AuditLog
from tests.unit.test_audit_log import line, read


def _append(path, name):
    log = AuditLog(path, max_bytes=20_000)
    for number in range(200):
        log.append([line(f"{name}-{number}")])


def test_several_processes_write_and_rotate_one_log(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(tmp_path / "audit.jsonl", n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert sorted(one["request_id"] for one in read(tmp_path)) == sorted(
        f"{name}-{number}" for name in range(4) for number in range(200)
    )
    now, *older = sorted(tmp_path.iterdir())
    assert len(older) > 3 and all(path.stat().st_size <= 20_000 for path in (now, *older))
    # Their names are in the order of their lines.
    assert all(re.fullmatch(r"audit\.jsonl\.\d{8}T\d{6}\.\d{6}Z", path.name) for path in older)
    ids = [json.loads(one)["request_id"] for path in (*older, now) for one in path.read_text().splitlines()]
    for name in range(4):
        assert [one for one in ids if one.startswith(f"{name}-")] == [f"{name}-{n}" for n in range(200)]
