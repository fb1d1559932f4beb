"""Tampered weights do not serve: a real Triton refuses to load them, and says why."""

import json
import re
import shutil
import subprocess

import pytest

from derma_semantics.domain.contract import NETWORK
from derma_semantics.domain.errors import DermaError
from derma_semantics.wire.transport import ModelControl
from derma_serving.model_config import located, read, set_parameters, write


@pytest.fixture
def network(repository):
    """The served folder; what a test changed there is undone."""
    folder = repository / NETWORK.name
    before = (folder / "config.pbtxt").read_bytes()
    yield folder
    (folder / "config.pbtxt").write_bytes(before)
    shutil.rmtree(folder / "2", ignore_errors=True)
    for leftover in folder.rglob(".*.incoming"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@pytest.fixture
def load(service, network):
    """Have the server load what lies there; its error, None where it loaded."""
    control = ModelControl(service.url)

    def ask():
        try:
            control.load(NETWORK.name)
        except DermaError as exc:
            return str(exc)
        return None

    yield ask
    shutil.rmtree(network / "2", ignore_errors=True)
    control.close()


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def restate(version, **values):
    """Have the configuration state something else."""
    path = located(version.parent)
    config = read(path)
    set_parameters(config, values)
    write(path, config)


def exchange_graph(version):
    """By one that answers other things: a whole graph, with weights that were changed."""
    path = version / "model.onnx"
    flip(path, path.stat().st_size // 2)
    return r"2/model\.onnx is not the graph that was exported: sha256 \w{12}"


def forge_manifest(version):
    """Graph and manifest agree, the digest of the bundle does not."""
    edit(version / "manifest.json", bundle_digest="ab" * 32)
    restate(version, bundle_digest="ab" * 32)
    return r"the graph holds bundle \w{12}…, its manifest\.json says abababababab"


def damage_manifest(version):
    (version / "manifest.json").write_bytes(b"{")
    return r"2/manifest\.json was altered: it is not JSON"


def remove_manifest(version):
    (version / "manifest.json").unlink()
    return r"2/manifest\.json is missing: export the bundle again"


def swap_parameter(version):
    restate(version, bundle_name="another")
    return r"states bundle_name another, version 2 was exported with derma-mini"


def swap_thresholds(version):
    """What the configuration tells people of the bundle's calibration."""
    restate(version, calibration='{"review": 0.9235}')
    return r"states calibration .*, version 2 was exported with"


@pytest.mark.parametrize(
    "tamper",
    [exchange_graph, forge_manifest, damage_manifest, remove_manifest, swap_parameter, swap_thresholds],
    ids=lambda tamper: tamper.__name__,
)
def test_a_tampered_version_is_refused_and_the_one_before_serves_on(load, network, client, jpeg, tamper):
    before = client.classify(jpeg(0))
    shutil.copytree(network / "1", network / "2")
    reason = tamper(network / "2")
    error = load()
    assert error and re.search(reason, error), error
    after = client.classify(jpeg(0))
    assert client.ready()
    assert (after.bundle.digest, after.risk) == (before.bundle.digest, before.risk)


def test_a_whole_version_is_loaded(load, network, client, jpeg):
    """So it was the tampering that was refused. Leftovers of a killed export do no harm."""
    before = client.classify(jpeg(0))
    shutil.copytree(network / "1", network / "2")
    (network / ".3.incoming").mkdir()
    (network / ".3.incoming" / "model.onnx").write_bytes(b"half")
    (network / ".config.pbtxt.incoming").write_text('name: "half')
    (network / "configs" / ".cuda.pbtxt.incoming").write_text('name: "half')
    assert load() is None
    assert client.bundle().version == "2"
    assert client.classify(jpeg(0)).risk == pytest.approx(before.risk, abs=1e-6)
    shutil.rmtree(network / "2")
    assert load() is None
    assert client.bundle().version == "1"


def test_status_verifies(derma, mini, client):
    digest = client.bundle().digest
    for options in ([], [mini], [digest]):
        done = derma("status", "--verify", *(["--expect", *options] if options else []))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "verified  the same bundle in answers, configuration" in done.stdout
    done = derma("status", "--expect", "ab" * 32)
    assert done.returncode == 1
    assert (
        f"MISMATCH  answers {digest[:12]}, configuration {digest[:12]}, expected abababababab" in done.stdout
    )


def test_a_service_does_not_start_with_tampered_weights(repository, launcher, ports, tmp_path):
    models = shutil.copytree(repository, tmp_path / "models")
    flip(models / NETWORK.name / "1" / "model.onnx", 5000)
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    command = [*launcher, "serve", f"--repository={models}", f"--state={tmp_path / 'state'}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3
    assert "1/model.onnx is not the graph that was exported: sha256" in done.stderr
