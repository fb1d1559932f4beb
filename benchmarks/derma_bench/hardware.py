"""The machine of a result: enough to repeat it, nothing that names it.

    machine()["cpu"], machine()["flags"]        # "AMD EPYC", ["avx512f", "avx512_bf16"]
    versions()["onnxruntime-openvino"]          # "1.24.1"

No host name, user name or path.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What decides how fast matrices multiply and images decode.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")
PACKAGES = (
    "derma-semantics",
    "fastapi",
    "grpcio",
    "httpx",
    "locust",
    "nncf",
    "numpy",
    "nvidia-nvimgcodec-cu12",
    "nvidia-nvjpeg-cu12",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "open_clip_torch",
    "openvino",
    "pillow",
    "simplejpeg",
    "timm",
    "torch",
    "torchvision",
    "uvicorn",
)
# Read as a run begins, before its own load counts.
LOAD = os.getloadavg()[0]


def machine() -> dict[str, Any]:
    """Processor, memory, GPU, system, and how busy it was before (load over one minute)."""
    cpu = Path("/proc/cpuinfo").read_text()
    present = set((_field(cpu, "flags") or "").split())
    return {
        "cpu": _field(cpu, "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in FLAGS if flag in present],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": round(LOAD, 2),
    }


def gpus() -> list[str]:
    """Name, memory and driver of each GPU; none where nvidia-smi is missing or fails."""
    query = "--query-gpu=name,memory.total,driver_version"
    return _lines("nvidia-smi", query, "--format=csv,noheader")


def versions() -> dict[str, str]:
    """Those of the packages involved that are installed here."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_commit() -> str:
    """Short commit of the checkout; ``+`` where tracked files differ; empty outside one."""
    commit = _lines("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _lines("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{commit[0]}{'+' if changed else ''}" if commit else ""


def _field(text: str, name: str) -> str | None:
    match = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def _lines(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()
