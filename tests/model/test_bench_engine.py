"""Operations are counted right, engines take turns, and a batch-dependent engine is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from derma_bench.engine.ceiling import Gemm, flops
from derma_bench.engine.fidelity import companions, differences, fidelity
from derma_bench.engine.kinds import KINDS, REFERENCE, Contender
from derma_bench.engine.measure import Plan, bursts, measure, summary
from derma_export.exact import class_token_only
from derma_export.samples import Samples
from derma_training.bundle import Bundle
from derma_training.network.classifier import Answers

WIDTH, HEADS, TOKENS, PATCHES = 8, 2, 5, 4
PIXELS = torch.arange(6 * 4, dtype=torch.uint8).reshape(6, 2, 2, 1)


def answers(scores: Tensor) -> Answers:
    """Two conditions whose probabilities follow ``scores``."""
    probabilities = torch.stack([scores, 1 - scores], dim=-1)
    nothing = torch.zeros(len(scores), 1)
    return Answers(probabilities, nothing, nothing, nothing, nothing, probabilities, nothing)


def honest(pixels: Tensor) -> Answers:
    return answers(pixels.float().mean(dim=(1, 2, 3)) / 255)


def batch_dependent(pixels: Tensor) -> Answers:
    """One scale for the whole batch, as dynamic quantisation has."""
    return answers(pixels.float().mean(dim=(1, 2, 3)) / pixels.max())


def vit() -> VisionTransformer:
    return VisionTransformer(32, 16, num_classes=0, embed_dim=WIDTH, depth=2, num_heads=HEADS).eval()


def block(queries: int) -> int:
    """By hand: a transformer block that computes ``queries`` of its tokens; 2 a multiply-add."""
    keys_values = TOKENS * WIDTH * 2 * WIDTH
    query_and_output = 2 * queries * WIDTH * WIDTH
    attention = 2 * queries * TOKENS * WIDTH
    mlp = 2 * queries * WIDTH * 4 * WIDTH
    return 2 * (keys_values + query_and_output + attention + mlp)


def test_a_linear_layer_is_counted_as_by_hand() -> None:
    assert flops(nn.Linear(7, 11), torch.zeros(3, 7)) == 2 * 3 * 7 * 11


@pytest.mark.parametrize("fused", [True, False])
def test_a_vit_is_counted_as_by_hand(fused: bool) -> None:
    tower = vit()
    for one in tower.blocks:
        one.attn.fused_attn = fused
    patches = 2 * PATCHES * (3 * 16 * 16) * WIDTH
    assert flops(tower, torch.zeros(1, 3, 32, 32)) == patches + 2 * block(TOKENS)
    assert flops(tower, torch.zeros(4, 3, 32, 32)) == 4 * (patches + 2 * block(TOKENS))


def test_what_the_exported_graph_leaves_out_is_not_counted() -> None:
    tower = vit()
    with class_token_only(tower):
        counted = flops(tower, torch.zeros(1, 3, 32, 32))
    assert counted == 2 * PATCHES * (3 * 16 * 16) * WIDTH + block(TOKENS) + block(1)


def test_the_rate_of_a_product_is_that_of_its_fastest_call() -> None:
    calls: list[int] = []
    gemm = Gemm("fake", "fp32", 10, 20, 30, lambda: calls.append(1))
    assert gemm.rate(0) > 0
    assert len(calls) == 4  # one to warm up, three that count


def test_an_answer_that_depends_on_the_batch_is_found_out() -> None:
    assert companions(honest, PIXELS, batch=3) == 0
    assert companions(batch_dependent, PIXELS, batch=3) > 0.1


def test_only_the_worst_part_of_the_batches_need_differ() -> None:
    pixels = torch.cat([torch.full((3, 2, 2, 1), 9, dtype=torch.uint8), PIXELS[3:]])
    assert (
        companions(batch_dependent, pixels, batch=3) == companions(batch_dependent, PIXELS[3:], batch=3) > 0
    )


def test_fidelity_names_each_engine_and_its_differences() -> None:
    good, bad = (Contender(name, "fp32", run, 1) for name, run in (("a", honest), ("b", batch_dependent)))
    rows = fidelity([good, bad], honest, PIXELS)
    assert [row["engine"] for row in rows] == ["a", "b"]
    assert rows[0]["max_probability_difference"] == rows[0]["companion_difference"] == 0
    assert rows[0]["min_cosine"] == pytest.approx(1)
    assert rows[1]["max_probability_difference"] > 0.1 and rows[1]["companion_difference"] > 0.1


def test_differences_are_those_of_the_worst_image() -> None:
    truth, changed = answers(torch.tensor([0.9, 0.6])), answers(torch.tensor([0.9, 0.4]))
    found = differences(truth, changed)
    assert found["max_probability_difference"] == pytest.approx(0.2)
    assert found["top1_agreement"] == 0.5
    assert found["min_cosine"] < found["mean_cosine"] < 1
    assert found["max_cosine_distance"] == pytest.approx(1 - found["min_cosine"])


def test_engines_and_products_take_turns() -> None:
    turns: list[str] = []

    def noting(name: str) -> Callable[[Tensor], Answers]:
        return lambda pixels: (turns.append(f"{name}{len(pixels)}"), honest(pixels))[1]

    contenders = [Contender(name, "fp32", noting(name), 1) for name in "ab"]
    gemm = Gemm("fake", "fp32", 1, 1, 1, lambda: turns.append("gemm"))
    rows = bursts(contenders, [gemm], PIXELS, Plan((1, 8), rounds=2, seconds=0))
    once = ["gemm"] * 4 + [f"{name}{batch}" for batch in (1, 8) for name in "ab" for _ in range(2)]
    assert turns == 2 * once  # eight images of six: some come twice
    assert [row["round"] for row in rows] == [0] * 5 + [1] * 5


def test_ratios_and_fractions_are_those_within_a_round() -> None:
    slow, fast = (Contender(name, "fp32", honest, flops=10**9) for name in ("slow", "fast"))
    rows = []
    # The machine is twice as fast in the second round: neither ratio nor fraction may see that.
    for number, speed in enumerate((1.0, 2.0)):
        rows += [
            {"round": number, "precision": "fp32", "gemm": f"gemm {n}", "gflops": n * speed} for n in (5, 8)
        ]
        rows += [
            {"round": number, "engine": name, "batch": 1, "images_per_s": rate * speed}
            for name, rate in (("slow", 2.0), ("fast", 6.0))
        ]
    figures = summary([slow, fast], rows)
    found = figures["engines"][1]
    assert found["ratio"] == found["ratio_min"] == found["ratio_max"] == 3
    assert found["fraction"] == found["fraction_min"] == found["fraction_max"] == 0.75
    assert (found["images_per_s"], found["gflops"]) == (9, 9)
    assert figures["ceiling"] == [
        {"precision": "fp32", "gflops": 12, "gflops_min": 8, "gflops_max": 16, "fastest": "gemm 8"}
    ]


def test_without_a_product_at_its_precision_an_engine_has_no_fraction() -> None:
    one = Contender("one", "int8", honest, 1)
    rows = [{"round": 0, "engine": "one", "batch": 1, "images_per_s": 2.0}]
    assert "fraction" not in summary([one], rows)["engines"][0]


def test_one_image_cannot_calibrate_and_compare(mini: Path, tmp_path: Path) -> None:
    samples = Samples(torch.zeros(1, 224, 224, 3, dtype=torch.uint8), ("one",), "test")
    with pytest.raises(ValueError, match="two images"):
        measure(Bundle.open(mini), [REFERENCE], samples, Plan(), tmp_path)


def test_the_table_of_engines_holds_together() -> None:
    assert next(iter(KINDS)) == REFERENCE
    assert {kind.device for kind in KINDS.values()} == {"cpu", "cuda"}
    assert replace(KINDS["cuda-fp16"], provider="cpu").device == "cpu"
