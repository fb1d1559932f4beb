"""One more entry in a table reaches whatever needs PyTorch or an engine, without another edit."""

import json

from click.testing import CliRunner

from derma_export.precision import CONVERSIONS
from derma_serving.runtime.precisions import PRECISIONS
from tests.edited import edited

PRECISION = """Precision(
    name="fp8", openvino_hint="bf16", torch_type="bfloat16",
    limits=Limits(
        probability=0.25, cosine=0.1, companions=0.1, top1=0.1, triage=0.1, prediction_set=0.1, quality=0.1
    ),
)"""
CONDITION = """Condition(
    code="SCC", name="squamous cell carcinoma", ham10000_dx="scc", marmal88_dx="squamous", isic2017=None,
    isic2019="SCC", snomed=None, risk=RiskLevel.HIGH, group=ConformalGroup.CARCINOMA,
    prompts=("a scaly red nodule",), paraphrases=("a", "b", "c", "d", "e"),
)"""
METHOD = """Method(
    name="even", label="Everywhere alike", relevance=lambda classifier, pixels, directions: (
        torch.ones(len(pixels), 14, 14), classifier(pixels)
    ),
)"""


def test_another_precision_reaches_commands_gate_engine_and_benchmarks():
    stated = {"parameters": {"precision": {"string_value": "fp8"}}}
    with edited("derma_serving.runtime.precisions", "PRECISIONS", PRECISION):
        from derma_bench.engine.kinds import KINDS
        from derma_export import cli, gate
        from derma_export.rollout import cli as rollout
        from derma_serving.runtime import engine
        from derma_serving.runtime.configuration import engine_for
        from derma_serving.runtime.engine import Engine

        for command in (cli.main, rollout.start):
            assert "fp8" in {option.name: option.type for option in command.params}["precision"].choices
        assert gate.LIMITS["fp8"].probability == 0.25
        assert engine_for(stated, "CPU", cores=1).precision == "fp8"
        hints = json.loads(engine._options(Engine("openvino", "fp8"))["load_config"])["CPU"]
        assert hints["INFERENCE_PRECISION_HINT"] == "bf16"
        assert KINDS["openvino-fp8"].graph == "fp32"
        assert CliRunner().invoke(cli.main, ["--precision", "fp9"]).exit_code == 2


def test_every_conversion_belongs_to_a_precision():
    assert {precision.conversion for precision in PRECISIONS} - {None} == CONVERSIONS.keys()


def test_another_condition_has_a_group_and_paraphrases():
    with edited("derma_semantics.domain.conditions", "CONDITIONS", CONDITION):
        from derma_training.calibration.conformal import GROUPS
        from derma_training.data.files import condition_of
        from derma_training.data.isic import CODES_2019
        from derma_training.prompts.wording import PARAPHRASES

        assert GROUPS == (("MEL",), ("BCC", "AKIEC", "SCC"), ("NV",), ("BKL", "DF", "VASC"))
        assert PARAPHRASES["SCC"] == ("a", "b", "c", "d", "e")
        assert condition_of("squamous") == 7
        assert CODES_2019["SCC"] == "SCC"


async def test_another_method_is_offered_and_explains(mini, jpeg):
    with edited("derma_saliency.methods", "METHODS", METHOD):
        from derma_saliency.explainer import Explainer
        from derma_saliency.readiness import Readiness
        from derma_training.bundle import Bundle

        explainer = Explainer.from_bundle(Bundle.open(mini), device="cpu")
        _, report = await Readiness(explainer, None).check()
        assert report["methods"][-1] == "even"
        assert report["method_labels"]["even"] == "Everywhere alike"
        assert explainer.explain(jpeg(0), condition="MEL", method="even").method == "even"
