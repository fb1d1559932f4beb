"""A service that keeps an audit log, certificates, and what looks at them from outside."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import urllib3

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Certificates as docs/security.md makes them, and those of a stranger, whom another CA signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    page = (ROOT / "docs" / "security.md").read_text()
    block = page.partition("```sh certificates\n")[2].partition("```")[0]
    maker = ROOT / "deploy" / "certificates.sh"
    folder = tmp_path_factory.mktemp("tls")
    for script in (block, "deploy/certificates.sh other stranger"):
        command = ["sh", "-e", "-c", script.replace("deploy/certificates.sh", str(maker))]
        subprocess.run(command, check=True, timeout=60, capture_output=True, cwd=folder)
    return folder / "certificates"


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory):
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def service(start_lasting, mini, audit_log):
    """With what makes Triton open a door for Vertex AI, unless it is told not to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIP_MODE", "PREDICTION")
        return start_lasting(f"--bundle={mini}", f"--audit-log={audit_log}")


@pytest.fixture(scope="session")
def ask_http():
    """One request on a connection of its own, which is closed: Triton waits for open ones when it ends."""

    def ask(verb, url, **options):
        with urllib3.PoolManager(retries=False) as pool:
            return pool.request(verb, url, timeout=60, **options)

    return ask


@pytest.fixture(scope="session")
def listening():
    """Addresses on which processes accept connections."""

    def addresses(pids):
        sockets = set()
        for pid in pids:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    sockets.add(str(descriptor.readlink()))
                except FileNotFoundError:
                    continue
        found = set()
        for table, width in (("tcp", 4), ("tcp6", 16)):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    address, port = fields[1].split(":")
                    # Words of four bytes, each in this machine's order.
                    raw = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, 2 * width, 8))
                    family = socket.AF_INET if width == 4 else socket.AF_INET6
                    found.add((socket.inet_ntop(family, raw).removeprefix("::ffff:"), int(port, 16)))
        return found

    return addresses
