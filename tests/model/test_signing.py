"""Signatures: made, required, refused; and the same as minisign's own."""

import hashlib
import shutil
import stat
import subprocess
import sys

import click.testing
import pytest

from derma_export.cli import main as export
from derma_export.facts import statement
from derma_semantics.domain.contract import NETWORK
from derma_serving import repository
from derma_training.bundle import Bundle, seal, sha256
from derma_training.bundle.signing import SignatureError, make_key, require_signature, sign
from derma_training.cli import main as train

SIGNATURE = "bundle.json.minisig"
# Made with `minisign 0.11` over a bundle.json of the three bytes "{}\n".
PUBLIC_KEY = "RWRxpFHarisu2etxQ0Zt0+YTpvxKdPWVQQwby4T+kypnj8kVVoS0Fmwi"
MADE_BY_MINISIGN = """\
untrusted comment: signature from minisign secret key
RURxpFHarisu2c4NbEyXbduba9KN7A/VdTZW52z//JbGnn+zcXyBm4jSrDuJ5X0M+t88GsmyUDwbMQVcUg2oEDNFAheekfOsZgE=
trusted comment: made by minisign 0.11
QOeF2XsLjLJEWhxs50ZzeBEKk/1nOovRyikBtZ0t99Dm7H4wlSGo3GKnjy5T3CJHwD96+13eZv+4hENHc/E4AA==
"""


@pytest.fixture
def bundle(mini, tmp_path):
    return Bundle.open(shutil.copytree(mini, tmp_path / "derma-mini"))


@pytest.fixture
def key(tmp_path):
    make_key(tmp_path / "derma.key", None)
    return tmp_path / "derma.key"


def never():
    raise AssertionError("the key has no password")


def public(key):
    return str(key.with_name(f"{key.name}.pub"))


def test_a_signed_bundle_is_accepted(bundle, key):
    digest = bundle.digest
    sign(bundle, key, never)
    again = Bundle.open(bundle.path)  # the signature is no part of what it signs
    assert again.digest == digest
    assert "timestamp:" in require_signature(again, public(key))
    line = (key.parent / "derma.key.pub").read_text().splitlines()[1]
    assert require_signature(again, line) == require_signature(again, public(key))


def test_minisign_s_own_signatures(tmp_path):
    (tmp_path / "bundle.json").write_text("{}\n")
    (tmp_path / SIGNATURE).write_text(MADE_BY_MINISIGN)
    bundle = Bundle(tmp_path, {}, hashlib.sha256(b"{}\n").hexdigest())
    assert require_signature(bundle, PUBLIC_KEY) == "made by minisign 0.11"
    for wrong in (MADE_BY_MINISIGN.replace("made by", "Made by"), MADE_BY_MINISIGN.replace("c4N", "c4M")):
        (tmp_path / SIGNATURE).write_text(wrong)
        with pytest.raises(SignatureError, match="signature verification failed"):
            require_signature(bundle, PUBLIC_KEY)


@pytest.mark.skipif(not shutil.which("minisign"), reason="needs the command minisign")
def test_minisign_reads_ours_and_we_read_its(bundle, key):
    manifest = str(bundle.path / "bundle.json")
    sign(bundle, key, never)
    subprocess.run(["minisign", "-V", "-p", public(key), "-m", manifest], check=True, timeout=30)
    (bundle.path / SIGNATURE).unlink()
    command = ["minisign", "-S", "-W", "-s", str(key), "-m", manifest, "-t", "by hand"]
    subprocess.run(command, check=True, timeout=30)
    assert require_signature(bundle, public(key)) == "by hand"


def test_an_unsigned_bundle_is_refused(bundle, key):
    with pytest.raises(SignatureError, match=r"derma-mini is not signed: it has no bundle\.json\.minisig"):
        require_signature(bundle, public(key))


def test_another_s_signature_is_refused(bundle, key, tmp_path):
    sign(bundle, key, never)
    make_key(tmp_path / "other.key", None)
    with pytest.raises(SignatureError, match="incompatible key identifiers"):
        require_signature(bundle, public(tmp_path / "other.key"))


def test_another_content_is_refused(bundle, key):
    """Also one that is whole by its own digests: that is what a signature is for."""
    sign(bundle, key, never)
    signature = (bundle.path / SIGNATURE).read_bytes()
    prompts = bundle.path / "prompts.json"
    prompts.write_text(prompts.read_text().replace("melanoma", "nevus"))
    facts = {k: v for k, v in bundle.manifest.items() if k not in ("schema_version", "files")}
    forged = seal(bundle.path, **facts)
    with pytest.raises(SignatureError, match="is not signed"):  # sealing anew drops the old one
        require_signature(forged, public(key))
    (bundle.path / SIGNATURE).write_bytes(signature)
    with pytest.raises(SignatureError, match="signature verification failed"):
        require_signature(Bundle.open(bundle.path), public(key))
    with pytest.raises(SignatureError, match="was altered since it was opened"):
        require_signature(bundle, public(key))


def test_damaged_signatures_and_keys_are_named(bundle, key):
    sign(bundle, key, never)
    path = bundle.path / SIGNATURE
    good = path.read_bytes()
    for damaged in (b"", good[: len(good) // 2], b"\xff" * 200, good.replace(b"\n", b" ")):
        path.write_bytes(damaged)
        with pytest.raises(SignatureError, match="is not the required signature"):
            require_signature(bundle, public(key))
    path.write_bytes(good)
    for wrong in ("", "no-such-file.pub", str(path), PUBLIC_KEY[:-1]):
        with pytest.raises(SignatureError, match="neither a file with a public key nor such a key"):
            require_signature(bundle, wrong)
    with pytest.raises(SignatureError, match="cannot sign"):
        sign(bundle, key.with_name("derma.key.pub"), never)


def test_keys_are_private_and_never_overwritten(key):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(SignatureError, match="never overwritten"):
        make_key(key, None)
    assert key.read_bytes() == before


def run(command, *given, **more):
    return click.testing.CliRunner().invoke(command, [str(one) for one in given], **more)


def test_commands_with_a_password(bundle, tmp_path, monkeypatch):
    key = tmp_path / "signer.key"
    done = run(train, "keygen", key, input="secret\nsecret\n")
    assert done.exit_code == 0, done.output
    wrong = run(train, "sign", bundle.path, "--key", key, input="guess\n")
    assert wrong.exit_code == 1 and "wrong password" in wrong.output
    assert not (bundle.path / SIGNATURE).exists()
    monkeypatch.setenv("DERMA_SIGNING_PASSWORD", "secret")
    done = run(train, "sign", bundle.path, "--key", key)
    assert done.exit_code == 0 and bundle.digest[:12] in done.output
    assert require_signature(bundle, f"{key}.pub")


@pytest.mark.parametrize("how", ["option", "variable"])
def test_export_refuses_what_is_not_signed(bundle, key, tmp_path, how):
    """Before anything is computed or written."""
    options = ["--require-signature", public(key)] if how == "option" else []
    env = {"DERMA_SIGNATURE_KEY": public(key)} if how == "variable" else {}
    command = [bundle.path, "--repository", tmp_path / "models", *options]
    refused = run(export, *command, env=env)
    assert refused.exit_code == 1 and "is not signed: it has no" in refused.output
    assert not (tmp_path / "models").exists()


def test_export_takes_what_is_signed(bundle, key, tmp_path):
    """Here nothing is left to do: the repository holds the bundle already."""
    models, graph = tmp_path / "models", tmp_path / "graph.onnx"
    graph.write_bytes(b"graph")
    made = {"engine": repository.engine_of("fp32").provider, "outputs": list(NETWORK.outputs), "gate": {}}
    told = {**statement(bundle, "fp32"), "graph_digest": sha256(graph), "embedding_size": 192}
    repository.install(models, graph, {**made, **told})
    command = (bundle.path, "--repository", models, "--if-needed", "--require-signature", public(key))
    assert run(export, *command).exit_code == 1
    sign(bundle, key, never)
    done = run(export, *command)
    assert done.exit_code == 0, done.output
    assert "signed derma-mini: timestamp:" in done.output and "already" in done.output


def test_without_the_library_a_required_signature_is_an_error(bundle, key, monkeypatch):
    sign(bundle, key, never)
    monkeypatch.setitem(sys.modules, "minisign", None)
    with pytest.raises(SignatureError, match=r"pip install 'derma-semantics\[sign\]'"):
        require_signature(bundle, public(key))
