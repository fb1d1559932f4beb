"""Configuration files: read, changed from the command line, refused with a reason, and stored."""

import pytest

from derma_training.learning.config import dump, load

SMALL = """
name = "small"
base = "mini"

[[phases]]
name = "full"
method = "full"
epochs = 3
learning_rate = 1e-4
"""


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path / "small.toml"


def test_shipped_configurations_load(pytestconfig):
    configs = pytestconfig.rootpath / "training" / "configs"
    mini = load(configs / "derma-mini.toml")
    assert (mini.name, mini.base) == ("derma-mini", "mini")
    assert [phase.method for phase in mini.phases] == ["full", "lora", "words"]
    assert load(configs / "biomedclip.toml").phases[0].method == "lora"
    assert load(configs / "words.toml").split.from_start


def test_what_is_stored_is_the_same_run(small):
    config = load(small, ["seed=7", "phases.0.augmentation.crop=0.3", "split.fold=2"])
    assert (config.seed, config.split.fold, config.phases[0].augmentation.crop) == (7, 2, 0.3)
    stored = small.with_name("stored.toml")
    stored.write_text(dump(config))
    assert load(stored) == config
    assert "mixup_alpha = 0.0" in dump(config)  # defaults are written out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("phases.0.epochs=0", r"phases.0.epochs: .*greater than or equal to 1"),
        ("phases.0.epoch=3", r"phases.0.epoch: unknown setting; did you mean epochs\?$"),
        ("phases.0.fresh=5", r"phases.0.fresh: unknown setting; known are .*head_lr_mult"),
        ("phases.0.text_noise=1.0", r"phases.0.text_noise: unknown setting"),
        ("phases.0.augmentation.jitter=0", r"augmentation.jitter: .*did you mean color_jitter\?$"),
        ("splits.fold=1", r"splits: unknown setting; did you mean split\?$"),
        ("phases.0.method=probe", r"phases.0: .*'probe'.*'full', 'lora', 'words'"),
        ("phases.0.learning_rate=fast", r"phases.0.learning_rate: .*number"),
        ("split.test=1.5", r"split.test: .*less than 1"),
        ("base=resnet", r"base: .*'mini' or 'biomedclip'"),
        ("phases.3.epochs=1", r"phases.3.epochs names no setting"),
        ("name.first=x", r"name.first names no setting"),
        ("phases=[]", r"phases is empty"),
        ("seed", r"'seed' is not key=value"),
    ],
)
def test_mistakes_are_named(small, change, message):
    with pytest.raises(ValueError, match=message):
        load(small, [change])


def test_phases_must_make_sense(small):
    more = '\n[[phases]]\nname = "full"\nmethod = "full"\nepochs = 1\nlearning_rate = 1e-4\n'
    small.write_text(SMALL + more)
    with pytest.raises(ValueError, match="two phases, or networks of one, have the same name"):
        load(small)
    with pytest.raises(ValueError, match="networks of one, have the same name"):
        load(small, ["phases.0.soup_size=2", "phases.1.name=full-2"])
    with pytest.raises(ValueError, match="only words may follow a lora phase"):
        load(small, ["phases.0.method=lora", "phases.1.name=more"])
    load(small, ["phases.0.method=lora", "phases.1.name=more", "phases.1.method=words"])
    small.write_text(SMALL.replace('method = "full"', ""))
    with pytest.raises(ValueError, match=r"phases\.0: method is missing: expected one of full, lora, words"):
        load(small)
    small.write_text("name = ")
    with pytest.raises(ValueError, match=r"small\.toml is not TOML"):
        load(small)
