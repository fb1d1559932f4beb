"""Roll-out loses no request: new versions under load, broken ones among them, roll-back and canary."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from derma_bench.load.loops import background
from derma_export.exporter import Task, export_bundle
from derma_export.gate import GateFailed
from derma_export.graph import OnnxClassifier
from derma_export.rollout.flow import Rollout, RolloutFailed, listed
from derma_export.rollout.trial import Trial
from derma_export.samples import synthetic_samples
from derma_semantics import DermaClient
from derma_semantics.domain.contract import CANARY, CANDIDATE, NETWORK
from derma_semantics.imaging.synthetic import draw
from derma_semantics.wire.transport import ModelControl
from derma_serving.repository import withdrawn
from derma_serving.runtime.engine import Engine
from derma_serving.runtime.integrity import versions
from derma_training.bundle import Bundle
from tests.faults.releases import corrupt_graph, cut_graph, failing_warm_up, release, served
from tests.faults.test_shutdown import GRACE, drained, lost_of, under_way_of
from tests.services import start, stop

BREAKS = (corrupt_graph, failing_warm_up, cut_graph)
BACK_IN = 10.0  # seconds
PAUSE = 0.1  # seconds; one request or another is under way all the time, and loading gets its turn


@pytest.fixture(scope="module")
def models(repository, tmp_path_factory):
    """A repository that this module may change."""
    return shutil.copytree(repository, tmp_path_factory.mktemp("rollout") / "models")


@pytest.fixture(scope="module")
def service(models, tmp_path_factory):
    service = start(models, tmp_path_factory.mktemp("state"))
    yield service
    stop(service)


@pytest.fixture
def rollout(service):
    control = ModelControl(service.url)
    with DermaClient(service.url) as client:
        yield Rollout(service.repository, control, client, say=lambda _: None)
    control.close()


@pytest.fixture
def make(repository, models, mini):
    """Makes candidates by their bundle's digest."""
    bundle = Bundle.open(mini)
    return lambda digest, broken=None: release(models, served(repository) / "1", bundle, digest, broken)


@contextmanager
def load(service, image):
    """Three clients that do not try again; yields what became of it, and when which digest was asked for."""
    seen = []
    with DermaClient(service.url, retry_for=0, timeout=60) as client:

        def ask():
            sent = time.monotonic()
            seen.append((sent, client.classify(image).bundle.digest))

        with background(*[ask] * 3, pause=PAUSE) as journal:
            yield journal, seen


@pytest.fixture(scope="module")
def trial(repository):
    """What is expected of every whole release: all are one graph."""
    expected = Trial(served(repository) / "1", Engine())
    return lambda version: expected


def command(service, *arguments):
    whole = [sys.executable, "-m", "derma_export.rollout", *arguments, f"--repository={service.repository}"]
    env = {**os.environ, "DERMA_URL": service.url}
    return subprocess.run(whole, capture_output=True, text=True, timeout=120, env=env, check=False)


def digest_of(number):
    return f"{number:064x}"


def test_rollouts_under_load_lose_nothing(
    service, rollout, make, trial, mini, models, jpeg, until, amount, note
):
    """The broken ones never serve, and what served before serves on."""
    count, first = amount(2, 20), Bundle.open(mini).digest
    kinds = list(BREAKS[: amount(2, 3)])
    broken = {digest_of(1000 + number): kind for number, kind in enumerate(kinds)}
    due = {2: broken}  # one of the first roll-outs goes before them
    slowest, serving = 0.0, first
    with load(service, jpeg(0)) as (journal, seen):
        until(lambda: seen, 60, "the load runs")
        for number in range(1, count + 1):
            for digest, kind in due.pop(number, {}).items():
                with pytest.raises(RolloutFailed, match=r"was refused; version \d+ serves on"):
                    rollout.start(make(digest, kind), lambda version: Trial(version, Engine()))
                assert rollout.client.classify(jpeg(0)).bundle.digest == serving
            begun, serving = time.monotonic(), digest_of(number)
            rollout.start(make(serving), trial)
            slowest = max(slowest, time.monotonic() - begun)
            assert answering(seen, until) == {serving}
        assert not due
        with pytest.raises(GateFailed):
            rollout.start(lambda: failing_gate(mini, models), trial)
        assert rollout.client.classify(jpeg(0)).bundle.digest == serving
        begun = time.monotonic()
        done = command(service, "back")
        back = time.monotonic() - begun
        assert done.returncode == 0, done.stderr
        before = digest_of(count - 1)
        assert answering(seen, until) == {before}
    note(
        "roll-out",
        roll_outs=count,
        broken_ones=len(kinds) + 1,
        requests=len(journal),
        failed=len(journal.failures),
        slowest_load_and_check_s=slowest,
        roll_back_s=back,
    )
    assert journal.failures == []
    assert not {digest for _, digest in seen} & set(broken)
    assert back < amount(60.0, BACK_IN)
    assert not (models / CANDIDATE.name).exists()
    assert len(withdrawn(models)) == len(kinds) + 1
    lines = list(listed(models))
    assert sum(line.endswith("serves") for line in lines) == 1


def answering(seen, until):
    """Which digests answer what is asked from now on."""
    now = time.monotonic()
    until(lambda: sum(sent > now for sent, _ in seen) > 3, 60, "the load goes on")
    return {digest for sent, digest in seen if sent > now}


def failing_gate(mini, models):
    """An export whose graph answers otherwise than PyTorch does."""

    def wrong(path, engine):
        run = OnnxClassifier(path, engine)
        return lambda pixels: run(255 - pixels)

    export_bundle(
        Bundle.open(mini),
        models,
        Task(synthetic_samples(2)),
        say=lambda _: None,
        run_graph=wrong,
        into=CANDIDATE,
    )


def pictures(count):
    return [np.array(draw(seed, (64, 64)).image) for seed in range(count)]


def test_a_canary_answers_its_share(service, rollout, make, trial, jpeg, until, amount, note):
    """The same images each time; promoted it answers all, aborted none."""
    images, share = pictures(amount(150, 300)), 20
    stable = rollout.client.classify(jpeg(0)).bundle.digest
    canaries = {digest_of(2001): "abort", digest_of(2002): "promote"}
    shares = {}
    with load(service, jpeg(0)) as (journal, _):
        for canary, end in canaries.items():
            rollout.start(make(canary), trial, share)
            answers = [answer.bundle.digest for answer in rollout.client.classify(images)]
            again = [answer.bundle.digest for answer in rollout.client.classify(images[:100])]
            assert set(answers) == {stable, canary}
            assert again == answers[:100]
            shares[end] = answers.count(canary) / len(images)
            # Five standard deviations of a binomial share.
            assert abs(shares[end] - share / 100) < 5 * (0.2 * 0.8 / len(images)) ** 0.5
            done = command(service, end)
            assert done.returncode == 0, done.stderr
            left = stable if end == "abort" else canary
            assert {a.bundle.digest for a in rollout.client.classify(images[:50])} == {left}
    note("canary", wanted=share / 100, got=shares, requests=len(journal), failed=len(journal.failures))
    assert journal.failures == []
    assert {row["name"] for row in rollout.control.index()} & {CANARY.name, CANDIDATE.name} == set()


def test_a_canary_survives_a_killed_triton(service, rollout, make, trial, until, amount):
    """It was not loaded by name when Triton started, and goes on."""
    if amount(True, False):
        pytest.skip("in the full form")
    images, canary = pictures(100), digest_of(3001)
    rollout.start(make(canary), trial, 50)
    server = next(pid for pid, command in service.processes() if "bin/tritonserver " in command)
    before = [answer.bundle.digest for answer in rollout.client.classify(images)]
    assert canary in before
    os.kill(server, signal.SIGKILL)
    until(lambda: not rollout.client.ready(timeout=1), 5, "readiness turns false")
    until(lambda: rollout.client.ready(timeout=1), 60, "Triton starts again")

    def same():
        return [answer.bundle.digest for answer in rollout.client.classify(images)] == before

    until(same, 60, "the canary answers its share again")
    rollout.back()
    assert {a.bundle.digest for a in rollout.client.classify(images)} == set(before) - {canary}
    assert versions(service.repository / NETWORK.name)


def test_a_canary_drains(repository, mini, trial, tmp_path, until, jpeg, amount, note):
    """What it was asked before the service ends is answered, as without one."""
    if amount(True, False):
        pytest.skip("in the full form")
    models, canary = shutil.copytree(repository, tmp_path / "models"), digest_of(4001)
    service = start(models, tmp_path / "state")
    control = ModelControl(service.url)
    with DermaClient(service.url) as client:
        rollout = Rollout(models, control, client, say=lambda _: None)
        rollout.start(release(models, served(repository) / "1", Bundle.open(mini), canary), trial, 50)
        its = next(n for n in range(100) if client.classify(jpeg(n)).bundle.digest == canary)
    control.close()
    requests, told, took = drained(service, until, jpeg(its), 48)
    lost = lost_of(requests, told)
    note("shutdown of a canary", under_way=len(under_way_of(requests, told)), lost=len(lost), exit_s=took)
    assert lost == []
    assert took < GRACE
