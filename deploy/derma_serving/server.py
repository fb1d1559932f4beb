"""The Triton server that a pip wheel carries, as one process with its own environment.

    server, stopping = TritonServer(Settings(repository=Path(".run/models"))), threading.Event()
    server.start(stopping); server.wait_until_ready(60, stopping); server.stop()

The wheel ``nvidia-pytriton`` holds the real ``tritonserver``, its Python backend and
the backend's stubs, but arranges them for its own use; here they are put together as
NVIDIA's container has them, with ``derma_serving/backends`` beside. In that container,
``Settings.triton`` names what it brings.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from derma_semantics.domain.contract import CLASSIFIER, NETWORK
from derma_semantics.domain.errors import ServiceUnavailable
from derma_semantics.wire.transport import GrpcTransport
from derma_serving import weights
from derma_serving.audited import HEADERS, audited
from derma_serving.runtime import ticket
from derma_serving.settings import POLL, ROOT, Settings
from derma_serving.state import copied

BACKENDS = Path(__file__).parent / "backends"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PR_SET_PDEATHSIG = 1
KILLED = 10.0  # seconds that the kernel may need to clear away a killed process
SECRETS = ("DERMA_ADMIN_KEY", "DERMA_TOKEN")  # of no use to Triton's processes
VERTEX_AI = "AIP_MODE"  # opens a door that knows nothing of the admin key, and shuts the others
# glibc would keep what is freed in eight arenas a core, each as large as the largest requests made it.
MEMORY = {"MALLOC_ARENA_MAX": "2"}
AUDIT_LOG = "DERMA_AUDIT_LOG"  # how the model that writes it learns of its place


class TritonServer:
    """Starts, awaits and stops ``tritonserver``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Process id.

        Raises:
            ServiceUnavailable: the server was not started.
        """
        if self.process is None:
            raise ServiceUnavailable("the server was not started")
        return self.process.pid

    def start(self, stopping: threading.Event) -> None:
        """Start the process, unless ``stopping`` is set; it logs to ``settings.log``.

        Raises:
            ServiceUnavailable: its environment is missing, a port is taken, or its weights were altered.
        """
        _check_ports(self.settings)
        self.settings.state.mkdir(parents=True, exist_ok=True)
        program, backends, variables = _installation(self.settings)
        repository = _repository(self.settings)
        if self.settings.native:
            weights.check(self.settings.repository, self.settings.profile)
        if stopping.is_set():
            return
        with self.settings.log.open("wb") as log:
            # Its own session: Ctrl-C then reaches the launcher alone, which shuts down in order.
            self.process = subprocess.Popen(
                [str(program), *_arguments(self.settings, repository, backends)],
                env=variables,
                cwd=self.settings.state,  # TensorRT's caches have paths relative to it
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def wait_until_ready(self, deadline: float, stopping: threading.Event) -> None:
        """Poll until the public model answers, or until ``stopping`` is set.

        Raises:
            ServiceUnavailable: the server ended, or was not ready within ``deadline`` seconds.
        """
        end = time.monotonic() + deadline
        transport = GrpcTransport(self.settings.grpc_url, tls=self.settings.own_tls)
        try:
            while not stopping.is_set() and not transport.ready(timeout=1.0):
                if not self.alive:
                    raise ServiceUnavailable(f"Triton ended while it started:\n{self.last_words()}")
                if time.monotonic() > end:
                    raise ServiceUnavailable(
                        f"{CLASSIFIER.name} was not ready within {deadline:.0f} s:\n{self.last_words()}"
                    )
                self.pause(POLL)
        finally:
            transport.close()

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the process lives."""
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)

    def stop(self, grace: float = 20.0) -> None:
        """End the server and everything it started: politely, after ``grace`` seconds by force."""
        if self.process is None:
            return
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
            self.pause(grace)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(KILLED)
        self.process = None
        for segment in Path("/dev/shm").glob(self.settings.shared_memory + "*"):
            segment.unlink(missing_ok=True)

    def last_words(self, lines: int = 15) -> str:
        """The end of the log, without the tables Triton draws."""
        text = self.settings.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in text if line and line[0] not in "+|"][-lines:])


def _installation(settings: Settings) -> tuple[Path, Path, dict[str, str]]:
    """Triton's program, its folder of backends, and its environment variables.

    Raises:
        ServiceUnavailable: something is missing.
    """
    if settings.triton is None:
        wheel = _wheel()
        backends = _assemble_backends(wheel, settings.state / "backends")
        return wheel / "bin" / "tritonserver", backends, _variables(wheel, settings)
    program, backends = settings.triton / "bin" / "tritonserver", settings.triton / "backends"
    for needed in (program, backends / "python", backends / "onnxruntime"):
        if not needed.exists():
            raise ServiceUnavailable(f"{settings.triton} is no Triton installation: it has no {needed}")
    if not settings.native:
        backends = _with_ours(backends / "python", settings.state / "backends")
    return program, backends, _public(settings)


@dataclass(frozen=True)
class Environment:
    """A Python environment: the folder of its interpreter, and that of its packages."""

    programs: Path
    packages: Path


def environment() -> Environment:
    """Where Triton's wheel is: in this interpreter's environment, else in the checkout's ``.triton``."""
    if (found := find_spec("pytriton")) and found.origin:
        return Environment(Path(sys.executable).parent, Path(found.origin).parents[1])
    beside = ROOT / ".triton"
    return Environment(beside / "bin", beside / "lib" / f"python{PYTHON}" / "site-packages")


def _wheel() -> Path:
    """The wheel's folder with ``bin``, ``backends`` and ``python_backend_stubs``."""
    wheel = environment().packages / "pytriton" / "tritonserver"
    if not wheel.is_dir():
        raise ServiceUnavailable(
            f"no Triton server is installed for Python {PYTHON}: `make setup` in a checkout, "
            "or pip install 'derma-semantics[serve]' for Python 3.11 or 3.12"
        )
    return wheel


def _check_ports(settings: Settings) -> None:
    own = ("http_port", "grpc_port", "metrics_port")  # the sidecar may be living on
    for name, port in [(name, port) for name, port in settings.ports.items() if name in own]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host if name == "grpc_port" else settings.local_host, port))
            except OSError as exc:
                option = name.replace("_", "-")
                raise ServiceUnavailable(
                    f"port {port} cannot be used ({exc.strerror}): "
                    f"stop what listens there or choose another ({name.upper()} or --{option})"
                ) from exc


def _assemble_backends(wheel: Path, target: Path) -> Path:
    """Put the Python backend, its stub for this interpreter and our backend into one folder."""
    stub = wheel / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServiceUnavailable(f"the Triton wheel has no Python backend stub for Python {PYTHON}")
    shutil.rmtree(target, ignore_errors=True)
    copied(wheel / "backends" / "python", target / "python")
    shutil.copy2(stub, target / "python")
    _add_ours(target)
    return target


def _with_ours(python: Path, target: Path) -> Path:
    """An installed Triton's Python backend, and ours in the place of the native one."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    (target / "python").symlink_to(python.resolve(), target_is_directory=True)
    _add_ours(target)
    return target


def _add_ours(backends: Path) -> None:
    copied(BACKENDS / "onnxruntime", backends / "onnxruntime")


def _repository(settings: Settings) -> Path:
    """What is served; where an audit log is kept, with the tickets that it needs."""
    if settings.audit_log is None:
        return settings.repository
    return audited(settings.repository, settings.state / "audited")


def _arguments(settings: Settings, repository: Path, backends: Path) -> list[str]:
    return [
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={backends.resolve()}",
        "--model-control-mode=explicit",
        f"--load-model={CLASSIFIER.name}",
        # Of the three models the one that a canary hides from Triton: it would not be loaded.
        f"--load-model={NETWORK.name}",
        f"--http-address={settings.local_host}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.grpc_port}",
        # Each that is kept for reuse keeps the memory of the largest request it ever held.
        "--grpc-infer-allocation-pool-size=1",
        f"--metrics-address={settings.local_host}",
        f"--metrics-port={settings.metrics_port}",
        f"--backend-config=python,shm-region-prefix-name={settings.shared_memory}",
        "--exit-timeout-secs=15",
        *settings.restrictions,
        *(settings.tls.arguments if settings.tls else []),
        *(_forwarded() if settings.audit_log else []),
        *([f"--model-config-name={settings.profile}"] if settings.profile else []),
    ]


def _forwarded() -> list[str]:
    """Who asked, and by which id: only the audit log has a use for them."""
    return [f"--grpc-header-forward-pattern={HEADERS}", f"--http-header-forward-pattern={HEADERS}"]


def _variables(wheel: Path, settings: Settings) -> dict[str, str]:
    """Lets the Python backend find its interpreter, which ignores PYTHONPATH, and its libraries."""
    place = environment()
    libraries = [str(place.packages / "nvidia_pytriton.libs"), _python_library()]
    return {
        **_public(settings),
        "PATH": f"{place.programs}:{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": ":".join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]),
    }


def _public(settings: Settings) -> dict[str, str]:
    """This environment, without what Triton's processes need not know, and what is set for them.

    Where an audit log is kept: its place, and what its tickets are signed with, new at each start.
    """
    own = (*SECRETS, VERTEX_AI, AUDIT_LOG, ticket.SECRET)
    kept = MEMORY | {name: value for name, value in os.environ.items() if name not in own}
    if settings.audit_log is None:
        return kept
    return kept | {AUDIT_LOG: str(settings.audit_log.resolve()), ticket.SECRET: secrets.token_hex(32)}


def _python_library() -> str:
    """The folder of ``libpython``, which the Python backend's stub is linked against.

    Raises:
        ServiceUnavailable: this Python has no shared library.
    """
    name = f"libpython{PYTHON}.so.1.0"
    folder = sysconfig.get_config_var("LIBDIR") or ""
    for candidate in (os.path.join(folder, name), name):
        with suppress(OSError):
            ctypes.CDLL(candidate)
            return folder
    raise ServiceUnavailable(
        f"Triton's Python backend needs {name}: install libpython{PYTHON} (Debian) or a shared Python"
    )


def end_with_parent() -> None:
    """In a child: have the kernel end it if the launcher dies without stopping it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
