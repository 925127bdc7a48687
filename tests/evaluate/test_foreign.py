"""Models of somebody else's: weights in a file, published ones, functions."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from bat_fast import data, models
from bat_fast.attacks import AutoAttack
from bat_fast.cli import main
from bat_fast.evaluate import evaluate
from bat_fast.evaluate.judge import evaluate_model
from bat_fast.evaluate.saved import evaluate_saved
from bat_fast.evaluate.subject import Foreign, open_subject

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, width=4, num_classes=10):
        super().__init__()
        self.hidden = torch.nn.Linear(64, width)
        self.out = torch.nn.Linear(width, num_classes)
    def forward(self, x):
        return self.out(torch.relu(self.hidden(x.flatten(1))))
"""


@pytest.fixture
def net(tmp_path):
    """The file of a class, and the file of its weights, as DataParallel writes them."""
    code = tmp_path / "net.py"
    code.write_text(NET)
    model = models.create(f"{code}:Net", num_classes=10, in_channels=1, image_size=8, options={"width": 6})
    plain = {"hidden.weight": model.net.hidden.weight, "hidden.bias": model.net.hidden.bias}
    plain |= {"out.weight": model.head.weight, "out.bias": model.head.bias}
    weights = tmp_path / "weights.pt"
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in plain.items()}, "epoch": 3}, weights
    )
    return SimpleNamespace(name=f"{code}:Net", weights=weights, model=model)


def by_hand(model, images=None):
    test = data.load("digits", seed=0).test
    with torch.no_grad():
        return (model(test.images).argmax(1) == test.labels)[:images].float().mean().item()


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_weights_of_a_file(kind, net, tmp_path, capsys):
    path = net.weights
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(torch.load(net.weights)["state_dict"], path)
    words = ["eval", str(path), "--model", net.name, "--model.options.width", "6", "--data", "digits"]
    assert main([*words, "--eps", "1/10", "--attack", "clean", "fgsm", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["test/clean_acc"] == pytest.approx(by_hand(net.model))
    assert found["metrics"]["test/fgsm_acc"] <= found["metrics"]["test/clean_acc"]
    more = ["--attack", "clean", "--mean", "0.3", "--std", "0.2", "--n", "50", "--device", "cpu"]
    assert main([*words, *more]) == 0
    assert "50 images" in capsys.readouterr().out


def test_mean_and_std_are_inside(net):
    foreign = Foreign(model=net.name, options={"width": 6}, data="digits", mean=[0.25], std=[0.5])
    model = open_subject(net.weights, device="cpu", foreign=foreign).model
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(x), net.model((x - 0.25) / 0.5))


def bad(net, words):
    known = {"WEIGHTS": str(net.weights), "NET": net.name}
    return ["eval", *(known.get(word, word) for word in words.split())]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("WEIGHTS --data digits", "--model NAME"),
        ("WEIGHTS --model NET", "--data NAME"),
        ("WEIGHTS --model NET --data digits --model.options.width 6", "nobody says which radius"),
        (
            "WEIGHTS --model NET --data digits --eps 0.1",
            "not fit the model; of another size: net.hidden",
        ),
        ("WEIGHTS --model small_cnn --data digits --eps 0.1", "missing: "),
        ("WEIGHTS --model NET --data digits --model.options.width 6 --eps 8", "write 8/255"),
        ("WEIGHTS --model NET --data digits --attack clean --mean 123 --std 58", "got 123: divide it by 255"),
        ("WEIGHTS --model NET --data digits --eps 0.1 --num_classes 9", "digits has 10 classes"),
        ("WEIGHTS --model NET --data digits --eps 0.1 --mean 0.1", "mean and std belong together"),
        ("WEIGHTS --model NET --data digits --eps 0.1 --model.options.width", "expected one argument"),
        ("timm:resnet18 --data digits --eps 0.1", "published for 1000 classes"),
        ("timm:resnet18 --data digits --model timm:resnet18", "is one already"),
    ],
)
def test_errors_are_one_line(words, text, net, capsys):
    assert main(bad(net, words)) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == 1


def test_a_pickle_that_runs_code_is_not_read(tmp_path, net, capsys):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    assert main(["eval", str(tmp_path / "evil.pt"), "--model", net.name, "--data", "digits"]) == 2
    assert "would run code" in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()


def test_published_weights_without_a_network(monkeypatch):
    import timm

    def offline(name, pretrained, **options):
        assert pretrained
        raise ConnectionError(name, options)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("bat_fast.models.published_classes", lambda _: 10)
    with pytest.raises(OSError, match=r"bat-fast eval FILE --model timm:resnet18"):
        evaluate_saved("timm:resnet18", foreign=Foreign(data="digits"), attack="clean", device="cpu")


def test_published_weights_normalise_as_they_need_it(monkeypatch):
    import timm

    make = timm.create_model

    def cached(name, pretrained, **options):
        assert pretrained
        return make(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", cached)
    monkeypatch.setattr("bat_fast.models.published_classes", lambda _: 10)
    subject = open_subject("timm:resnet18", device="cpu", foreign=Foreign(data="synthetic"))
    assert subject.model.normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert subject.described["arch"] == "timm:resnet18"


ANSWERS = {
    "tensor": lambda logits: logits,
    "tuple": lambda logits: (logits, "features"),
    "object": lambda logits: SimpleNamespace(logits=logits),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_any_callable(kind):
    linear = torch.nn.Linear(64, 10)
    test = data.load("digits", seed=0).test
    x, y = test.images[:40], test.labels[:40]

    def answer(x):
        return ANSWERS[kind](linear(x.flatten(1)))

    found = evaluate_model(answer, [(x, y)], ["pgd5", "aa-quick"], eps=0.1)
    clean = (linear(x.flatten(1)).argmax(1) == y).float().mean().item()
    assert found["metrics"]["test/clean_acc"] == pytest.approx(clean)
    assert evaluate(answer, [(x, y)])["clean_acc"] == pytest.approx(clean)
    verdicts = AutoAttack(answer, eps=0.1, mode="quick").judge(x, y)
    assert found["metrics"]["test/aa_quick_acc"] == sum(verdicts.robust) / 40


@pytest.mark.slow
def test_a_checkpoint_of_torchvision(tmp_path, capsys):
    from torchvision.models import resnet18

    net = resnet18(num_classes=10).eval()
    path = tmp_path / "weights.pt"
    torch.save(net.state_dict(), path)
    foreign = Foreign(model="torchvision:resnet18", data="synthetic", mean=[0.5] * 3, std=[0.25] * 3)
    model = open_subject(path, device="cpu", foreign=foreign).model
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), net((x - 0.5) / 0.25))
    assert main(["eval", str(path), "--model", "torchvision:resnet19", "--data", "synthetic"]) == 2
    assert "did you mean resnet18?" in capsys.readouterr().err
