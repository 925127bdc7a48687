"""Training images and batches of another size from one epoch on, and straight lines of the rate."""

import numpy as np
import pytest
import torch
from PIL import Image

from bat_fast.cli.settings import read_command
from bat_fast.config import recipes
from bat_fast.config.limits import check
from bat_fast.train import Trainer
from bat_fast.train.observer import Observer

LINES = ["--optim.schedule", "linear", "--optim.milestones", "[0.5, 2]", "--optim.factors", "[1, 0.5]"]
PHASES = [
    *("--data.phases.ends", "[1]", "--data.phases.sizes", "[8, 16]"),
    *("--data.phases.batches", "[8, 4]"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """train/CLASS, val/CLASS and test/CLASS with small pictures."""
    root, chance = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2), ("test", 2)):
        for name in ("ant", "cat"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = chance.integers(0, 256, (24, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


class Steps(Observer):
    """The shape of each batch; interrupts after some."""

    def __init__(self, most: int = 99) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.most = most

    def step(self, batch, *_):
        self.shapes.append(tuple(batch.x.shape))
        if len(self.shapes) == self.most:
            raise KeyboardInterrupt


def run(tree, out, steps, *words, resume=False):
    words = [*words, "--data.name", "image_folder", "--data.root", str(tree), "--data.workers", "0"]
    words += ["--data.options", '{"size": 12}', "--data.augment.resized_crop", "true", "--device", "cpu"]
    words += ["--method.name", "pgd_at", "--attack.steps", "1", "--epochs", "2", "--eval.val_steps", "1"]
    words += ["--eval.test_steps", "1", "--checkpoint_every", "1", "--attack.engine", "eager"]
    config = read_command(words).config
    return Trainer(config, out, progress=False, resume=resume, observers=(steps,))


def test_one_step_on_each_side_of_a_boundary(tree, tmp_path):
    whole, cut, rest = Steps(), Steps(4), Steps()
    trainer = run(tree, tmp_path / "whole", whole, *PHASES, *LINES)
    results = trainer.fit()
    small, large = (8, 3, 8, 8), (4, 3, 16, 16)
    assert whole.shapes == [small] * 2 + [large] * 4
    # The rate is that of the share of the epoch, whatever its number of steps: (1 + 3.5 / 4) / 2 of the run.
    assert trainer.rows[1]["train/lr"] == pytest.approx(0.1 * (1 - 0.5 * (1.875 - 1)))
    assert results["n_examples"] == {"train": 16, "val": 4, "test": 4}
    assert trainer.feed.eval("test").source.image_size == 12

    with pytest.raises(KeyboardInterrupt):
        run(tree, tmp_path / "cut", cut, *PHASES, *LINES).fit()
    again = run(tree, tmp_path / "cut", rest, *PHASES, *LINES, resume=True)
    again.fit()
    assert rest.shapes[-1] == large
    assert len(cut.shapes) + len(rest.shapes) in (6, 7)  # the last step may have been made again
    for one, two in zip(trainer.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_images_in_memory_have_one_size(tmp_path):
    config = read_command(["--recipe", "digits-pgd-at", *PHASES, "--device", "cpu"]).config
    with pytest.raises(ValueError, match=r"data\.phases\.sizes: the images of digits lie in memory"):
        Trainer(config, tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.phases.ends", "[3, 2]"], r"data\.phases\.ends must rise and stay below epochs = 40, got"),
        (
            ["--data.phases.ends", "40"],
            r"data\.phases\.ends must rise and stay below epochs = 40, got \[40\]",
        ),
        (["--data.phases.ends", "2", "--data.phases.sizes", "8"], r"sizes needs one more entry .* 2, got"),
        (["--data.phases.batches", "[8, 4]"], r"batches needs one more entry than data.phases.ends, 1, got"),
        (["--data.phases.batches", "0"], r"data\.phases\.batches must be at least 1, got 0"),
        ([*LINES[:-1], "[1]"], r"optim\.factors needs one entry for each of the 2 optim\.milestones"),
        (["--optim.factors", "1"], r"optim\.factors needs optim\.schedule linear"),
        ([*LINES[:3], "[30, 0.5]", *LINES[4:]], r"optim\.milestones must rise for linear"),
        (["--data.phases.batches", "8", "--optim.micro_batches", "9"], r"at most the least of data\.phases"),
        (["--data.phases.batches", "8", "--data.extra.path", "x.npz"], "batches does not go with data.extra"),
        (["--data.phases.sizes", "8", "--data.extra.path", "x.npz"], "sizes does not go with data.extra"),
    ],
)
def test_what_does_not_go_together(words, message):
    with pytest.raises(ValueError, match=message):
        check(read_command(["--recipe", "digits-pgd-at", *words]).config)


def test_the_recipes_of_fast_training_on_imagenet():
    for name in ("imagenet-fgsm-rs-published", "imagenet-n-fgsm-published"):
        assert name in recipes()
        config = read_command(["--recipe", name]).config
        assert config.data.phases.sizes == (128, 224, 288)
