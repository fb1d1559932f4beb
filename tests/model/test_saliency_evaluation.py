"""The measures of maps, on maps whose figures are known, and the command on drawn pairs."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from derma_saliency.cli import main
from derma_saliency.evaluation import measures, sanity
from derma_saliency.evaluation.pairs import find_pairs
from derma_saliency.evaluation.statistics import difference
from derma_saliency.explainer import Explainer
from derma_saliency.methods import METHODS
from derma_semantics.imaging.preprocess import preprocess
from derma_semantics.imaging.synthetic import draw
from derma_training.bundle import Bundle


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Six drawn photographs with masks."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed in range(6):
        picture = draw(seed, (300, 225))
        picture.image.save(folder / f"p{seed}.jpg", quality=92)
        picture.mask.save(folder / f"p{seed}_mask.png")
    return folder


@pytest.fixture(scope="module")
def explainer(mini):
    return Explainer.from_bundle(Bundle.open(mini), device="cpu")


def test_energy_and_pointing_of_known_maps():
    mask = np.zeros((224, 224), bool)
    mask[:, :56] = True
    even = np.ones((224, 224), np.float32)
    assert measures.energy(even, mask) == pytest.approx(0.25)
    assert measures.energy(mask.astype(np.float32), mask) == 1
    assert measures.energy(0 * even, mask) == 0
    assert measures.pointing(mask.astype(np.float32), mask) == 1
    assert measures.pointing((~mask).astype(np.float32), mask) == 0


def test_gaussian_is_centred_with_a_quarter_of_the_side():
    bump = measures.gaussian_grid((14, 14))
    assert np.allclose(bump, bump[::-1, ::-1])
    across = bump[6] / bump[6].max()
    edge = np.interp(0.75, (np.arange(14) + 0.5) / 14, across)
    assert edge == pytest.approx(np.exp(-0.5), abs=0.03)


class OneCorner:
    """Its first condition is as probable as the upper left quarter is white."""

    text = torch.zeros(1)

    def __call__(self, pixels):
        class Answers:
            probabilities = pixels[:, :112, :112].float().mean(dim=(1, 2, 3))[:, None] / 255

        return Answers


def test_a_true_map_deletes_fast_and_inserts_fast():
    pixels = np.zeros((224, 224, 3), np.uint8)
    pixels[:112, :112] = 255
    true = np.zeros((14, 14), np.float32)
    true[:7, :7] = 1
    deletion, insertion = measures.perturbed(OneCorner(), pixels, true, 0)
    worse_deletion, worse_insertion = measures.perturbed(OneCorner(), pixels, 1 - true, 0)
    assert deletion < worse_deletion - 0.3
    assert insertion > worse_insertion + 0.05


def test_paired_differences_have_intervals():
    rng = np.random.default_rng(1)
    base = rng.normal(size=400)
    found = difference(base + 0.5 + 0.1 * rng.normal(size=400), base)
    low, high = found["interval"]
    assert 0.45 < low < found["mean"] < high < 0.55


def test_pairs_by_halves(pairs):
    assert [p.name for p in find_pairs(pairs, pairs)] == [f"p{i}" for i in range(6)]
    even, odd = (find_pairs(pairs, pairs, part=part) for part in ("even", "odd"))
    assert [p.name for p in even] == ["p0", "p2", "p4"]
    assert [p.name for p in odd] == ["p1", "p3", "p5"]
    with pytest.raises(ValueError, match="has a mask"):
        find_pairs(pairs, pairs.parent)


def test_masks_go_the_way_of_their_images(pairs):
    pixels, mask = find_pairs(pairs, pairs)[0].load()
    assert pixels.shape == (224, 224, 3) and mask.shape == (224, 224)
    darker = pixels.sum(axis=-1)[mask].mean() < pixels.sum(axis=-1)[~mask].mean()
    assert darker


def test_a_mask_of_another_size_is_refused(tmp_path):
    draw(0, (300, 225)).image.save(tmp_path / "a.jpg")
    Image.new("L", (100, 100)).save(tmp_path / "a_mask.png")
    with pytest.raises(ValueError, match="a_mask.png"):
        find_pairs(tmp_path, tmp_path)[0].load()


def test_truth_of_isic_2017_names_the_conditions(pairs, tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("image_id,melanoma,seborrheic_keratosis\np0,1.0,0.0\np1,0.0,1.0\np2,0.0,0.0\n")
    assert [pair.condition for pair in find_pairs(pairs, pairs, path)] == ["MEL", "BKL", "NV"]
    path.write_text("image,MEL\np0,1.0\n")
    with pytest.raises(ValueError, match="lacks the columns image_id"):
        find_pairs(pairs, pairs, path)


def test_flat_maps_have_no_ranks():
    ramp = np.arange(196, dtype=np.float32).reshape(14, 14)
    assert sanity.rank_correlation(ramp, ramp) == pytest.approx(1)
    assert sanity.rank_correlation(ramp, -ramp) == pytest.approx(-1)
    assert sanity.rank_correlation(ramp, 0 * ramp) == 0


@pytest.mark.parametrize("method", METHODS)
def test_maps_depend_on_text_and_weights(explainer, jpeg, method):
    pixels = torch.from_numpy(np.stack([preprocess(jpeg(seed)) for seed in range(3)]))
    assert sanity.prompt_sensitivity(explainer, pixels, method)["mean"] < 0.9
    weights = explainer.classifier.visual.head.proj.weight.clone()
    directions = torch.stack([explainer.texts.direction(condition="MEL")] * 3)
    found = sanity.cascade(explainer, pixels, directions, method)
    assert [*found][:2] == ["head", "block 11"] and [*found][-1] == "patches"
    assert abs(found["patches"]) < 0.5
    assert torch.equal(weights, explainer.classifier.visual.head.proj.weight)


def test_command_writes_its_report_and_goes_on(mini, pairs, tmp_path):
    out = tmp_path / "report"
    command = ["evaluate", str(mini), "--images", str(pairs), "--masks", str(pairs), "--out", str(out)]
    done = CliRunner().invoke(main, [*command, "--limit", "4", "--perturbed", "2"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| **attention** (default) |" in done.output
    report = json.loads((out / "metrics.json").read_text())
    assert report["images"] == 4
    assert set(report["maps"]) == {*METHODS, "gaussian", "random"}
    assert report["maps"]["attention"]["deletion"]["images"] == 2
    for picture in ("saliency-difference.png", "saliency-cascade.png"):
        assert Image.open(out / picture).width > 400
    rows = (out / "rows.jsonl").read_text().splitlines()
    assert len(rows) == 4
    (out / "rows.jsonl").write_text("\n".join(rows[:3]) + "\n" + rows[3][:50])  # killed while it wrote
    again = CliRunner().invoke(main, [*command, "--limit", "4", "--perturbed", "2"], catch_exceptions=False)
    assert json.loads((out / "metrics.json").read_text()) == report
    assert again.exit_code == 0
    other = CliRunner().invoke(main, [*command, "--limit", "4", "--perturbed", "3"])
    assert other.exit_code == 1 and "other settings" in other.output
