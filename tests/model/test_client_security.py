"""TLS, mutual TLS and tokens, against services in this process with certificates made for the test."""

import shutil
import subprocess

import grpc
import pytest

from derma_semantics import TLS, AsyncDermaClient, DermaClient
from derma_semantics.domain.errors import ServiceUnavailable

if shutil.which("openssl") is None:
    pytest.skip("openssl makes the certificates", allow_module_level=True)


def make(folder, name, *, ca=None, san="DNS:localhost,IP:127.0.0.1"):
    """A key and a certificate, signed by ``ca`` or by itself; returns the paths without suffix."""
    key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        f"{folder}/{name}.key",
    ]
    kind = ["-addext", f"subjectAltName={san}"] if ca else ["-addext", "keyUsage=keyCertSign"]
    signer = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key"] if ca else []
    command = ["openssl", "req", "-x509", *key, *kind, *signer, "-subj", f"/CN={name}", "-days", "2"]
    subprocess.run([*command, "-out", f"{folder}/{name}.pem"], check=True, capture_output=True, timeout=30)
    return folder / name


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    ca = make(folder, "ca")
    make(folder, "server", ca=ca)
    make(folder, "cluster", ca=ca, san="DNS:triton.clinic")
    make(folder, "client", ca=ca)
    make(folder, "stranger")
    return folder


@pytest.fixture
def secure(kserve, files):
    """Start a service with TLS; returns it and its port."""

    def start(name="server", mutual=False):
        pair = ((files / f"{name}.key").read_bytes(), (files / f"{name}.pem").read_bytes())
        ca = (files / "ca.pem").read_bytes() if mutual else None
        service, port, _ = kserve(grpc.ssl_server_credentials([pair], ca, mutual))
        return service, port

    return start


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls(secure, files, host):
    service, port = secure()
    with DermaClient(f"{host}:{port}", tls=TLS(ca=files / "ca.pem"), token="s3cret") as client:
        assert client.classify(b"x").top.condition.code == "BCC"
    assert service.metadata[0]["authorization"] == "Bearer s3cret"


async def test_tls_in_asyncio(secure, files):
    service, port = secure()
    async with AsyncDermaClient(f"127.0.0.1:{port}", tls=TLS(ca=files / "ca.pem"), token="s3cret") as client:
        assert (await client.classify(b"x")).top.condition.code == "BCC"
    assert service.metadata[0]["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("ca", ["stranger.pem", None])
def test_an_unknown_server_is_refused(secure, files, ca):
    service, port = secure()
    tls = TLS(ca=files / ca if ca else None)
    client = DermaClient(f"127.0.0.1:{port}", tls=tls, token="s3cret", retry_for=0)
    with pytest.raises(ServiceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        client.classify(b"x")
    assert service.metadata == []


def test_a_server_of_another_name_is_refused(secure, files):
    _, port = secure("cluster")
    with pytest.raises(ServiceUnavailable, match="Hostname Verification"):
        DermaClient(f"127.0.0.1:{port}", tls=TLS(ca=files / "ca.pem"), retry_for=0).classify(b"x")


def test_several_addresses_share_the_name_in_their_certificates(secure, files):
    (first, one), (second, other) = secure("cluster"), secure("cluster")
    tls = TLS(ca=files / "ca.pem", name="triton.clinic")
    with DermaClient(f"localhost:{one},127.0.0.1:{other}", tls=tls) as client:
        client.classify([b"x"] * 20)
    assert min(first.asked, second.asked) > 0


def test_one_host_with_several_ports_needs_no_name(secure, files):
    (first, one), (second, other) = secure(), secure()
    with DermaClient(f"localhost:{one},localhost:{other}", tls=TLS(ca=files / "ca.pem")) as client:
        client.classify([b"x"] * 20)
    assert min(first.asked, second.asked) > 0


def test_several_hosts_need_a_name(files):
    with pytest.raises(ValueError, match=r"TLS\(name=...\)"):
        DermaClient("10.0.0.1:1,10.0.0.2:1", tls=TLS(ca=files / "ca.pem"))


def test_mutual_tls(secure, files):
    _, port = secure(mutual=True)
    own = {"certificate": files / "client.pem", "key": files / "client.key"}
    with DermaClient(f"127.0.0.1:{port}", tls=TLS(ca=files / "ca.pem", **own)) as client:
        assert client.classify(b"x").top.condition.code == "BCC"
    strange = {"certificate": files / "stranger.pem", "key": files / "stranger.key"}
    for pair in ({}, strange):
        client = DermaClient(f"127.0.0.1:{port}", tls=TLS(ca=files / "ca.pem", **pair), retry_for=0)
        with pytest.raises(ServiceUnavailable):
            client.classify(b"x")


def test_plaintext_to_a_server_with_tls(secure):
    _, port = secure()
    with pytest.raises(ServiceUnavailable):
        DermaClient(f"127.0.0.1:{port}", retry_for=0).classify(b"x")


def test_files_that_do_not_fit(files, tmp_path):
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ValueError, match="both"):
        TLS(certificate=files / "client.pem")
    with pytest.raises(ValueError, match=r"stranger\.key"):
        TLS(certificate=files / "client.pem", key=files / "stranger.key")
    with pytest.raises(ValueError, match=r"empty\.pem"):
        TLS(ca=tmp_path / "empty.pem")
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        TLS(ca=tmp_path / "none.pem")


@pytest.mark.parametrize("url", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:1,127.0.0.1:{port}"])
def test_a_token_travels_in_plaintext_within_this_machine(kserve, url):
    service, port, _ = kserve()
    address = url.format(port=port).rsplit(",", 1)[-1] if "::1" in url else url.format(port=port)
    DermaClient(url.format(port=port), token="s3cret").close()
    with DermaClient(address, token="s3cret") as client:
        client.classify(b"x")
    assert service.metadata[0]["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("client", [DermaClient, AsyncDermaClient])
@pytest.mark.parametrize(
    "url", ["triton.clinic:8001", "10.0.0.1:8001", "127.0.0.1:1,10.0.0.1:8001", "localhost.evil:1"]
)
def test_but_not_beyond(client, url):
    with pytest.raises(ValueError, match="plaintext: use TLS") as caught:
        client(url, token="s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ключ"])
def test_what_is_no_token(token):
    with pytest.raises(ValueError, match="printable ASCII"):
        DermaClient(token=token)


def test_the_sidecar_gets_no_token_in_plaintext_from_afar():
    client = DermaClient(token="s3cret", saliency_url="http://saliency.clinic:8003", retry_for=0)
    with pytest.raises(ValueError, match=r"saliency\.clinic:8003 in plaintext"):
        client.explain(b"x", "melanoma")
