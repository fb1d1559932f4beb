"""The drawn pictures: seeded, varied, with a true mask, and labelled as drawn."""

import click.testing
import numpy as np
from PIL import Image

from derma_semantics.commands.synthetic import synthetic as main
from derma_semantics.imaging.synthetic import draw


def test_same_seed_same_picture():
    first, again, other = draw(4, (200, 150)), draw(4, (200, 150)), draw(5, (200, 150))
    assert (np.asarray(first.image) == np.asarray(again.image)).all()
    assert (np.asarray(first.image) != np.asarray(other.image)).any()


def test_mask_is_the_lesion():
    for seed in range(12):
        picture = draw(seed, (300, 225))
        assert picture.image.size == picture.mask.size == (300, 225)
        mask = np.asarray(picture.mask)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.03 < (mask > 0).mean() < 0.6
        # The lesion is darker than the skin right around it.
        grey = np.asarray(picture.image.convert("L")).astype(float)
        around = mask == 0
        centre = np.zeros_like(around)
        centre[60:165, 80:220] = True
        assert grey[mask > 0].mean() < grey[around & centre].mean() - 15


def test_files_say_what_they_are(tmp_path):
    result = click.testing.CliRunner().invoke(main, [str(tmp_path), "--count", "2", "--seed", "7", "--masks"])
    assert result.exit_code == 0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "synthetic-0007.jpg",
        "synthetic-0007_mask.png",
        "synthetic-0008.jpg",
        "synthetic-0008_mask.png",
    ]
    assert b"synthetic" in Image.open(tmp_path / names[0]).info["comment"]
