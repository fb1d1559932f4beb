"""The hand-written Triton configurations say what the contract says."""

import subprocess
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2

from derma_semantics.domain import contract
from derma_semantics.domain.conditions import CODES, CONDITIONS, RiskLevel, by_code
from derma_serving.model_config import located, profiles, read, set_parameters, to_dict
from derma_serving.runtime.configuration import engine_for
from derma_serving.settings import TEMPLATES, Settings

ROOT = Path(__file__).resolve().parents[2]
TYPES = {"BYTES": "TYPE_STRING"}
# What the native backend takes from the parameters only; in the accelerator it would be without effect.
CUDA_PARAMETERS = {"gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search"}


def configs(*models):
    """The default configuration of each model and its profiles: (model, profile)."""
    found = [
        pytest.param(model, path.stem, id=f"{model.name}-{path.stem}")
        for model in models
        for path in [located(TEMPLATES / model.name), *profiles(TEMPLATES / model.name)]
    ]
    return pytest.mark.parametrize(("model", "profile"), found)


def read_config(model: contract.Model, profile: str = "config"):
    return read(located(TEMPLATES / model.name, profile))


def engine(config, kind):
    """What the stand-in backend makes of a configuration, for a graph in fp16 where a GPU is meant."""
    if kind == "GPU":
        set_parameters(config, {"precision": "fp16"})
    return engine_for(to_dict(config), kind, cores=16)


def tensors(entries):
    return {e.name: (model_config_pb2.DataType.Name(e.data_type), tuple(e.dims)) for e in entries}


def as_written(entries):
    """As ``expected``; what a table or the bundle decides is -1, and export states it."""
    open_sizes = ("PROBABILITIES", "PREDICTION_SET", "QUALITY", "EMBEDDING")
    return {n: (kind, (-1,) if n in open_sizes else dims) for n, (kind, dims) in expected(entries).items()}


def expected(entries):
    return {
        name: (TYPES.get(t.datatype, f"TYPE_{t.datatype}"), tuple(t.shape)) for name, t in entries.items()
    }


@configs(*contract.MODELS)
def test_config_matches_contract(model, profile):
    config = read_config(model, profile)
    assert config.name == model.name
    assert (config.backend or config.platform) == model.backend
    assert config.max_batch_size == contract.MAX_BATCH
    assert tensors(config.input) == expected(model.inputs)
    assert tensors(config.output) == as_written(model.outputs)


def test_the_canary_s_router_matches_contract():
    config = read(ROOT / "deploy" / "derma_serving" / "canary" / "config.pbtxt")
    assert (config.name, config.backend) == (contract.CANARY.name, contract.CANARY.backend)
    assert config.max_batch_size == contract.MAX_BATCH
    assert tensors(config.input) == expected(contract.CANARY.inputs)
    assert tensors(config.output) == as_written(contract.CANARY.outputs)
    policy = config.dynamic_batching.default_queue_policy
    assert policy.max_queue_size > 0
    assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT


@configs(contract.PREPROCESS, contract.NETWORK)
def test_queues_are_bounded_and_reject(model, profile):
    policy = read_config(model, profile).dynamic_batching.default_queue_policy
    assert policy.max_queue_size > 0
    assert policy.default_timeout_microseconds > 0
    assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT


@configs(contract.NETWORK)
def test_network_warms_up_every_batch_size_in_use(model, profile):
    """The powers of two up to the largest batch that the scheduler forms."""
    config = read_config(model, profile)
    largest = max(config.dynamic_batching.preferred_batch_size)
    assert largest <= contract.MAX_BATCH
    buckets = [2**power for power in range(largest.bit_length())]
    assert [warmup.batch_size for warmup in config.model_warmup] == buckets
    for warmup in config.model_warmup:
        assert {k: tuple(v.dims) for k, v in warmup.inputs.items()} == {"PIXELS": (224, 224, 3)}


def test_by_default_the_network_runs_on_openvino_and_the_preferred_size_is_kept():
    config = read_config(contract.NETWORK)
    assert engine(config, "CPU").provider == "openvino"
    assert [group.kind for group in config.instance_group] == [model_config_pb2.ModelInstanceGroup.KIND_AUTO]
    # With a delay, Triton sends whatever waits, however much, once it is over.
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


def test_profiles_are_complete():
    """Decoding for a GPU needs more processes than decoding for a processor."""
    known = set(Settings(repository=TEMPLATES).profiles)
    assert known == {"cuda", "cuda-nvimgcodec", "tensorrt"}
    for profile in known:
        decoders = [read_config(contract.PREPROCESS, p).instance_group[0] for p in ("config", profile)]
        assert decoders[1].count > decoders[0].count


def test_only_its_own_profile_decodes_by_nvimgcodec_on_the_gpu():
    kinds = model_config_pb2.ModelInstanceGroup
    for profile in ("config", "cuda", "tensorrt"):
        config = read_config(contract.PREPROCESS, profile)
        assert "decoder" not in config.parameters
        assert [group.kind for group in config.instance_group] == [kinds.KIND_CPU]
    config = read_config(contract.PREPROCESS, "cuda-nvimgcodec")
    assert config.parameters["decoder"].string_value == "nvimgcodec"
    assert [group.kind for group in config.instance_group] == [kinds.KIND_GPU]
    assert read_config(contract.NETWORK, "cuda-nvimgcodec") == read_config(contract.NETWORK, "cuda")


@pytest.mark.parametrize("profile", ["cuda", "tensorrt"])
def test_gpu_profiles(profile):
    config = read_config(contract.NETWORK, profile)
    assert {group.kind for group in config.instance_group} == {model_config_pb2.ModelInstanceGroup.KIND_GPU}
    assert engine(config, "GPU").provider == profile
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert not CUDA_PARAMETERS & set(accelerator.parameters)


def test_cuda_memory_is_bounded():
    options = engine(read_config(contract.NETWORK, "cuda"), "GPU").options
    assert int(options["gpu_mem_limit"]) > 0
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"


def test_tensorrt_builds_one_engine_for_all_batches_and_keeps_it():
    options = engine(read_config(contract.NETWORK, "tensorrt"), "GPU").options
    image = "x".join(map(str, contract.NETWORK.inputs["PIXELS"].shape))
    shapes = [options[f"trt_profile_{end}_shapes"] for end in ("min", "opt", "max")]
    assert shapes == [f"PIXELS:{batch}x{image}" for batch in (1, 8, contract.MAX_BATCH)]
    switches = ("trt_fp16_enable", "trt_engine_cache_enable", "trt_timing_cache_enable")
    assert {options[switch] for switch in switches} == {"True"}
    assert options["trt_engine_cache_path"] and options["trt_timing_cache_path"]


@configs(*contract.MODELS)
def test_what_people_wrote_says_nothing_of_a_bundle(model, profile):
    """Export adds it to a copy, which git ignores: the working tree stays clean whatever is served."""
    assert not {*contract.PARAMETERS, *contract.FACTS} & set(read_config(model, profile).parameters)


def test_what_is_served_lies_where_git_ignores_it():
    assert TEMPLATES == ROOT / "model_repository"
    served = Settings().repository.relative_to(ROOT)
    for name, ignored in ((served, True), ("model_repository", False)):
        path = f"{name}/derma_biomedclip/1/model.onnx"
        done = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False, timeout=30)
        assert done.returncode == (0 if ignored else 1)


def test_the_conditions_stand_in_one_order():
    assert CODES == ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def test_conditions():
    assert by_code("BCC").name == "basal cell carcinoma"
    with pytest.raises(ValueError, match="'XYZ'.*MEL"):
        by_code("XYZ")
    levels = {c.code: c.risk for c in CONDITIONS if c.malignant}
    assert levels == {"MEL": RiskLevel.HIGH, "BCC": RiskLevel.HIGH, "AKIEC": RiskLevel.PREMALIGNANT}
    assert all(len(set(c.prompts)) >= 3 for c in CONDITIONS)
