import json

import pytest
import torch

from bat_fast.evaluate.examine import examine
from bat_fast.train import Trainer


@pytest.fixture(scope="module")
def path(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    Trainer(small(epochs=2), out, progress=False).fit()
    return out


@pytest.fixture(scope="module")
def found(path):
    return examine(path, steps=3, device="cpu")


def test_it_is_the_test_of_the_run_again(path, found):
    metrics = json.loads((path / "results.json").read_text())["metrics"]
    assert found.total == len(found.labels) == 359
    assert float(found.radii[0.0].double().mean()) == pytest.approx(metrics["test/clean_acc"])
    assert float(found.radii[found.eps].double().mean()) == pytest.approx(metrics["test/pgd3_acc"])
    assert torch.equal(found.steps[3], found.radii[found.eps])
    assert (found.eps, found.norm, found.attack) == (0.1, "linf", "pgd3")
    names = [finding.name for finding in found.findings]
    assert len(names) == len(set(names)) == 12
    assert {"zero gradients", "not converged", "larger ball helps"} <= set(names)


def test_larger_balls_break_more(found):
    accuracies = [float(mask.float().mean()) for mask in found.radii.values()]
    assert list(found.radii) == sorted(found.radii)
    assert accuracies[0] > accuracies[-1]
    assert found.unbounded == list(found.radii)[-1] == 0.5
    assert list(found.steps) == [1, 2, 3, 5, 10, 50]


def test_galleries_show_what_they_say(found):
    clean, attacked = found.radii[0.0], found.radii[found.eps]
    assert found.examples["fragile"]
    for place in found.examples["fragile"]:
        assert clean[place]
        assert not attacked[place]
    for place in found.examples["sturdy"]:
        assert attacked[place]
    for place in found.examples["wrong"]:
        assert not clean[place]
    for gallery in found.examples.values():
        for example in gallery.values():
            assert (example.attacked - example.clean).abs().max() <= found.eps + 1e-6


def test_examples_are_the_attacked_images_themselves(path, found):
    from bat_fast.evaluate import load_run

    model, _ = load_run(path)
    for gallery in found.examples.values():
        for place, example in gallery.items():
            for image, logits in ((example.clean, found.clean), (example.attacked, found.attacked)):
                torch.testing.assert_close(model(image[None])[0].detach(), logits[place], atol=1e-3, rtol=0)


def test_the_loss_around_is_that_of_the_images(found):
    seen, at = found.around, found.around.at.tolist()
    attacked, by_chance = (losses[at.index(1)] - losses[at.index(0)] for losses in (seen.attack, seen.chance))
    assert attacked.median() > by_chance.median()
    assert set(seen.planes) == {what for what in ("fragile", "sturdy") if found.examples[what]}
    middle = seen.planes["fragile"]
    assert bool(middle.right[at.index(0), at.index(0)])
    assert not bool(middle.right[at.index(0), at.index(1)])


def test_fewer_images_and_other_batches(path, found):
    some = examine(path, images=50, steps=3, batch_size=7, device="cpu")
    places = torch.linspace(0, 358, 50).long()
    assert (len(some.labels), some.total) == (50, 359)
    assert torch.equal(some.ids, found.ids[places])
    torch.testing.assert_close(some.attacked, found.attacked[places], atol=1e-3, rtol=0)


def test_it_says_how_far_it_is(path):
    told = []
    examine(path, images=1, steps=1, device="cpu", tell=lambda done, of: told.append((done, of)))
    assert told == [(number, told[-1][1]) for number in range(1, told[-1][1] + 1)]


def test_bad_input(path, tmp_path):
    with pytest.raises(ValueError, match="images"):
        examine(path, images=0)
    with pytest.raises(FileNotFoundError):
        examine(tmp_path)
