"""The native backend's configuration decides the engine."""

import pytest

from derma_serving.model_config import parse, to_dict
from derma_serving.runtime.configuration import engine_for
from derma_serving.runtime.engine import Engine

CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")


def config(text=""):
    """A configuration as Triton hands it to a Python backend."""
    return to_dict(parse(text, "test"))


def accelerators(**lists):
    fields = " ".join(f"{kind}_execution_accelerator [ {entries} ]" for kind, entries in lists.items())
    return f"optimization {{ execution_accelerators {{ {fields} }} }} "


def accelerator(name, **parameters):
    entries = " ".join(f'parameters {{ key: "{k}" value: "{v}" }}' for k, v in parameters.items())
    return f'{{ name: "{name}" {entries} }}'


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }} '


BOTH = accelerators(cpu=accelerator("openvino"), gpu=accelerator("cuda"))


def test_nothing_asked_for_is_the_cpu_provider():
    assert engine_for(config(), "CPU", cores=4) == Engine("cpu", "fp32", threads=4)


def test_the_kind_of_instance_decides_which_list_counts():
    assert engine_for(config(BOTH), "CPU", cores=4).provider == "openvino"
    assert engine_for(config(BOTH), "GPU", cores=4).provider == "cuda"
    assert engine_for(config(accelerators(gpu=accelerator("cuda"))), "CPU", cores=4).provider == "cpu"


@pytest.mark.parametrize(("available", "provider"), [(CUDA, "cuda"), ((), "openvino")])
def test_kind_auto_on_a_gpu_uses_it_if_onnx_runtime_can(available, provider):
    asked = config(accelerators(cpu=accelerator("openvino")))
    assert engine_for(asked, "GPU", cores=4, available=available).provider == provider


def test_an_accelerator_that_was_asked_for_is_never_replaced():
    assert engine_for(config(BOTH), "GPU", cores=4, available=()).provider == "cuda"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_precision(precision):
    asked = config(BOTH + parameter("precision", precision))
    assert engine_for(asked, "CPU", cores=1).precision == precision


@pytest.mark.parametrize(
    ("text", "cores", "threads"),
    [
        ("", 6, 6),
        ("instance_group [ { kind: KIND_CPU count: 2 } ]", 6, 3),
        ("instance_group [ { kind: KIND_CPU count: 2 }, { kind: KIND_CPU count: 2 } ]", 6, 1),
        ("instance_group [ { kind: KIND_CPU count: 9 } ]", 6, 1),
        ("instance_group [ { kind: KIND_AUTO count: 3 } ]", 6, 2),
        ("instance_group [ { kind: KIND_GPU count: 3 }, { kind: KIND_CPU count: 2 } ]", 6, 3),
        ("instance_group [ { kind: KIND_CPU count: 2 } ] " + parameter("intra_op_thread_count", "5"), 6, 5),
        (parameter("intra_op_thread_count", "0"), 6, 6),
    ],
)
def test_instances_share_the_cores(text, cores, threads):
    assert engine_for(config(text), "CPU", cores=cores).threads == threads


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_tensorrt_in_fp16_refuses_a_graph_that_was_gated_otherwise(precision):
    entry = accelerator("tensorrt", precision_mode="FP16")
    asked = config(accelerators(gpu=entry) + parameter("precision", precision))
    with pytest.raises(ValueError, match=f"the graph was gated as {precision}: export it as fp16"):
        engine_for(asked, "GPU", cores=4)


def test_tensorrt_options():
    entry = accelerator(
        "tensorrt",
        precision_mode="FP16",
        max_workspace_size_bytes="1024",
        trt_engine_cache_enable="1",
        trt_engine_cache_path="cache",
        trt_min_subgraph_size="1",
        trt_layer_norm_fp32_fallback="true",
        trt_cuda_graph_enable="0",
    )
    asked = config(accelerators(gpu=entry) + parameter("precision", "fp16"))
    engine = engine_for(asked, "GPU", cores=4, device=1)
    assert engine.provider == "tensorrt"
    assert engine.options == {
        "device_id": "1",
        "trt_fp16_enable": "True",
        "trt_max_workspace_size": "1024",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "cache",
        "trt_min_subgraph_size": "1",
        "trt_layer_norm_fp32_fallback": "True",
        "trt_cuda_graph_enable": "False",
    }


def test_cuda_options_stand_in_the_accelerator_or_in_the_parameters():
    asked = accelerators(gpu=accelerator("cuda", use_tf32="0", gpu_mem_limit="1"))
    asked += parameter("gpu_mem_limit", "2048") + parameter("arena_extend_strategy", "1")
    asked += parameter("cudnn_conv_algo_search", "2")
    assert engine_for(config(asked), "GPU", cores=4).options == {
        "device_id": "0",
        "use_tf32": "0",
        "gpu_mem_limit": "2048",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "DEFAULT",
    }


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            accelerators(cpu=accelerator("onednn")),
            "CPU",
            "unknown cpu_.*'onednn'.*openvino",
        ),
        (accelerators(cpu=accelerator("cuda")), "CPU", "unknown cpu_execution_accelerator 'cuda'"),
        (accelerators(gpu=accelerator("openvino")), "GPU", "unknown gpu_.*'openvino'.*tensorrt, cuda"),
        (accelerators(gpu=accelerator("gpu_io")), "CPU", "unknown gpu_execution_accelerator 'gpu_io'"),
        (
            accelerators(cpu=accelerator("openvino", num_streams="4")),
            "CPU",
            "no parameters.*num_streams",
        ),
        (
            accelerators(gpu=accelerator("tensorrt", precision_mode="fp16")),
            "GPU",
            "mode 'fp16'.*FP16",
        ),
        (accelerators(gpu=accelerator("tensorrt", fp16="1")), "GPU", "unknown parameter 'fp16' of tensorrt"),
        (
            accelerators(gpu=accelerator("tensorrt", trt_dla_enable="yes")),
            "GPU",
            "trt_dla_enable must.*'yes'",
        ),
        (BOTH + parameter("arena_extend_strategy", "2"), "GPU", "arena_extend_strategy must be one of.*'2'"),
        (
            BOTH + parameter("arena_extend_strategy", "same"),
            "GPU",
            "one of.*kSameAsRequested.*'same'",
        ),
        (parameter("precision", "fp8"), "CPU", "unknown precision 'fp8'.*bf16"),
        (parameter("intra_op_thread_count", "-1"), "CPU", "intra_op_thread_count must be a number, got '-1'"),
    ],
)
def test_planted_errors(text, kind, message):
    with pytest.raises(ValueError, match=message):
        engine_for(config(text), kind, cores=4)
