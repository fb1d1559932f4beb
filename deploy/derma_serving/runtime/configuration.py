"""The native ONNX Runtime backend's configuration, read into an ``Engine``.

The gate, the benchmarks and the stand-in backend all run what this says.

    engine = engine_for(config, "CPU", cores=8, available=onnxruntime.get_available_providers())

Names and meanings are those of https://github.com/triton-inference-server/onnxruntime_backend,
and one more parameter: ``precision``, of the exported graph. ``inter_op_thread_count`` has no
effect here, as it has none there while operators run one after another, which is the default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from derma_serving.runtime.engine import PROVIDERS, Engine, Provider
from derma_serving.runtime.precisions import DEFAULT, PRECISIONS, by_name

ACCELERATORS: dict[str, tuple[Provider, ...]] = {"gpu": ("tensorrt", "cuda"), "cpu": ("openvino",)}
PRECISION_MODES = {"FP32": (), "FP16": ("trt_fp16_enable",), "INT8": ("trt_fp16_enable", "trt_int8_enable")}
# TensorRT's options that the native backend calls otherwise.
RENAMED = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
SWITCHES = (
    "trt_dump_ep_context_model",
    "trt_dump_subgraphs",
    "trt_detailed_build_log",
    "trt_force_sequential_engine_build",
    "trt_force_timing_cache",
    "trt_int8_use_native_calibration_table",
    "trt_layer_norm_fp32_fallback",
)
TRUTH = {"1": "True", "true": "True", "0": "False", "false": "False"}
# CUDA's options that the native backend takes from the model's own parameters, and their codes.
CUDA_PARAMETERS: dict[str, tuple[str, ...]] = {
    "gpu_mem_limit": (),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "do_copy_in_default_stream": (),
}


def engine_for(
    config: Mapping[str, Any], kind: str, cores: int, available: Collection[str] = (), device: int = 0
) -> Engine:
    """What runs one instance of a model.

    Args:
        config: the model's configuration, as Triton gives it to Python backends.
        kind: of the instance: CPU or GPU.
        cores: that all instances together may use.
        available: this ONNX Runtime's providers.
        device: number of the GPU.

    Raises:
        ValueError: the configuration asks for what does not exist.
    """
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    provider, given = _accelerator(config, kind, available)
    precision = by_name(parameters.get("precision", DEFAULT))
    if given.get("precision_mode") == "FP16" and not precision.gpu:
        fitting = " or ".join(known.name for known in PRECISIONS if known.gpu)
        raise ValueError(
            f"the profile computes in fp16, but the graph was gated as {precision.name}: "
            f"export it as {fitting}"
        )
    options: dict[str, str] = {}
    if provider in ACCELERATORS["gpu"]:
        read = _tensorrt if provider == "tensorrt" else _cuda
        options = {"device_id": str(device), **read(given, parameters)}
    elif given:
        raise ValueError(f"openvino takes no parameters, got {', '.join(given)}")
    return Engine(provider, precision.name, _threads(config, kind, cores, parameters), options)


def _accelerator(
    config: Mapping[str, Any], kind: str, available: Collection[str]
) -> tuple[Provider, dict[str, str]]:
    """The first accelerator that counts for this kind of instance, and its parameters.

    One that was asked for is never replaced. Without one, an instance that Triton put on a GPU
    runs on CUDA, or - KIND_AUTO with an ONNX Runtime for CPUs - as on a CPU.
    """
    gpu, cpu = (_listed(config, name) for name in ("gpu", "cpu"))
    if kind == "GPU":
        if gpu:
            return gpu[0]
        if PROVIDERS["cuda"] in available:
            return "cuda", {}
    return cpu[0] if cpu else ("cpu", {})


def _listed(config: Mapping[str, Any], kind: str) -> list[tuple[Provider, dict[str, str]]]:
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    found: list[tuple[Provider, dict[str, str]]] = []
    for entry in accelerators.get(f"{kind}_execution_accelerator", []):
        known = {name: name for name in ACCELERATORS[kind]}
        if entry["name"] not in known:
            raise ValueError(
                f"unknown {kind}_execution_accelerator {entry['name']!r}: choose from {', '.join(known)}"
            )
        found.append((known[entry["name"]], entry.get("parameters", {})))
    return found


def _tensorrt(given: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, str]:
    given = dict(given)
    mode = given.pop("precision_mode", "FP32")
    if mode not in PRECISION_MODES:
        raise ValueError(f"unknown precision_mode {mode!r}: choose from {', '.join(PRECISION_MODES)}")
    options = dict.fromkeys(PRECISION_MODES[mode], "True")
    for key, value in given.items():
        name = RENAMED.get(key, key)
        if not name.startswith("trt_"):
            raise ValueError(f"unknown parameter {key!r} of tensorrt")
        switch = name in SWITCHES or name.endswith("_enable")
        options[name] = _truth(key, value) if switch else value
    return options


def _truth(key: str, value: str) -> str:
    """ONNX Runtime's Python wants True or False where the native backend also takes numbers."""
    if value.lower() not in TRUTH:
        raise ValueError(f"{key} must be 1, true, 0 or false, got {value!r}")
    return TRUTH[value.lower()]


def _cuda(given: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, str]:
    own = {name: _decoded(name, parameters[name]) for name in CUDA_PARAMETERS if name in parameters}
    return {**given, **own}


def _decoded(name: str, value: str) -> str:
    codes = dict(enumerate(CUDA_PARAMETERS[name]))
    if not codes:
        return value
    if not value.isdecimal() or int(value) not in codes:
        raise ValueError(f"{name} must be one of {codes}, got {value!r}")
    return codes[int(value)]


def _threads(config: Mapping[str, Any], kind: str, cores: int, parameters: Mapping[str, str]) -> int:
    """Threads of one instance; by default the instances share the cores, so that none fights another."""
    asked = parameters.get("intra_op_thread_count", "0")
    if not asked.isdecimal():
        raise ValueError(f"intra_op_thread_count must be a number, got {asked!r}")
    kinds = (f"KIND_{kind}", "KIND_AUTO")
    groups = [g for g in config.get("instance_group", []) if g.get("kind", "KIND_AUTO") in kinds]
    instances = sum(int(group.get("count", 1)) for group in groups)
    return int(asked) or max(1, cores // max(1, instances))
