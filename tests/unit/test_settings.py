"""Where the service may listen, what it asks for, and what it hands on."""

from pathlib import Path

import pytest

from derma_semantics.wire.admin import admin_key
from derma_semantics.wire.connection import Connection
from derma_semantics.wire.transport import ModelControl
from derma_serving.settings import ServerTLS, Settings, write_private


class Files(ServerTLS):
    """One whose files are not looked at."""

    def __post_init__(self):
        pass


ONE_WAY = Files(Path("server.pem"), Path("server.key"))
MUTUAL = Files(Path("server.pem"), Path("server.key"), Path("ca.pem"))


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "192.168.1.1"])
@pytest.mark.parametrize("tls", [None, ONE_WAY])
def test_beyond_this_machine_callers_need_certificates(host, tls):
    with pytest.raises(ValueError, match=f"on {host} anyone could ask.*--tls-ca.*--insecure"):
        Settings(host=host, tls=tls)


def test_with_them_only_grpc_leaves_this_machine():
    settings = Settings(host="10.0.0.5", tls=MUTUAL)
    assert (settings.grpc_url, settings.local_host) == ("10.0.0.5:8001", "127.0.0.1")
    assert settings.saliency_url == "http://127.0.0.1:8003"


def test_insecure_opens_every_part():
    settings = Settings(host="0.0.0.0", insecure=True)
    assert (settings.local_host, settings.grpc_url) == ("0.0.0.0", "127.0.0.1:8001")


def test_by_default_all_stay_here():
    settings = Settings()
    assert (settings.host, settings.local_host, settings.open) == ("127.0.0.1", "127.0.0.1", False)


@pytest.mark.parametrize("host", ["localhost", "::1", "", "10.0.0"])
def test_a_host_is_an_ipv4_address(host):
    with pytest.raises(ValueError, match="IPv4 address"):
        Settings(host=host)


def test_each_service_has_a_key_of_its_own_and_never_shows_it():
    one, other = Settings(), Settings()
    assert one.admin_key != other.admin_key
    assert len(one.admin_key) >= 40
    assert one.admin_key not in repr(one)


@pytest.mark.parametrize(
    "key", ["short", "sixteen letters!", "a" * 15, "key=with:signs,0123", "ключключключключ"]
)
def test_a_key_that_triton_cannot_read_is_refused(key):
    with pytest.raises(ValueError, match="16 or more letters") as caught:
        Settings(admin_key=key)
    assert key not in str(caught.value)


def test_all_that_operators_do_is_closed():
    grpc, http = Settings(admin_key="k" * 16).restrictions
    closed = "model-repository,shared-memory,statistics,trace,logging:derma-admin-key=kkkkkkkkkkkkkkkk"
    assert (grpc, http) == (f"--grpc-restricted-protocol={closed}", f"--http-restricted-api={closed}")


def test_a_command_learns_where_the_service_is_but_not_its_key():
    inherited = {"DERMA_ADMIN_KEY": "secret", "DERMA_CA": "other.pem", "DERMA_URL": "far:1", "HOME": "/h"}
    told = Settings(grpc_port=9).environment(inherited)
    assert told == {"DERMA_URL": "127.0.0.1:9", "HOME": "/h"}
    told = Settings(bundle=Path("b")).environment(inherited)
    assert told["DERMA_SALIENCY_URL"] == "http://127.0.0.1:8003"


def test_the_key_file_is_for_its_owner_alone(tmp_path):
    file = tmp_path / "admin.key"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)


def test_tools_find_the_key(monkeypatch, tmp_path):
    for name in ("DERMA_ADMIN_KEY", "DERMA_ADMIN_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert admin_key() is None
    monkeypatch.setenv("DERMA_ADMIN_KEY_FILE", str(tmp_path / "admin.key"))
    assert admin_key() is None  # no service was started there
    (tmp_path / "admin.key").write_text("from-the-file\n")
    assert admin_key() == "from-the-file"
    monkeypatch.setenv("DERMA_ADMIN_KEY", "from-the-variable")
    assert admin_key() == "from-the-variable"


@pytest.mark.parametrize(
    ("url", "sent"), [("127.0.0.1:1", True), ("localhost:1", True), ("10.0.0.1:1", False)]
)
def test_the_key_never_travels_in_plaintext(url, sent):
    assert Connection(url).private == sent
    assert bool(ModelControl(url, key="k" * 16)._key) == sent
