import pytest
import torch
from models import examined

from bat_fast.report.findings import by_class, checks, margins, most_confused, seen_as
from bat_fast.runs.calibration import reliability
from bat_fast.runs.examined import right
from bat_fast.runs.finding import Finding


def test_confusion_counts_every_image():
    logits = torch.eye(3)[[0, 1, 1, 2]]
    counts = seen_as(logits, torch.tensor([0, 0, 1, 2]))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_classes_begin_with_the_least_robust():
    found = examined(classes=3, n=30, names=["a", "b", "c"])
    rows = by_class(found)
    assert [row.robust for row in rows] == sorted(row.robust for row in rows)
    assert sum(row.n for row in rows) == 30
    for row in rows:
        here = found.labels == found.classes.index(row.name)
        assert row.clean == pytest.approx(float((found.clean.argmax(1) == found.labels)[here].float().mean()))
        assert row.taken_for == "bca"["abc".index(row.name)]
    pairs = most_confused(found, 2)
    assert [pair[2] for pair in pairs] == [5, 5]
    assert set(pairs[0][:2]) <= set("abc")


def test_a_class_that_the_data_do_not_have_is_a_prediction_like_others():
    found = examined(classes=2, n=4, outputs=3, robust=1.0)
    found.attacked[0] = torch.tensor([0.0, 0.0, 9.0])
    assert by_class(found)[0].taken_for == ""
    assert most_confused(found, 5) == [("0", "-", 1, 0)]


def test_margin_is_the_distance_to_the_likeliest_other():
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]).log()
    assert margins(logits, torch.tensor([0, 2])).tolist() == pytest.approx([0.3, -0.5])


def test_calibration_error():
    logits = torch.tensor([[0.85, 0.15]] * 10).log()
    labels = torch.tensor([0] * 6 + [1] * 4)
    bins, error = reliability(logits.softmax(1).amax(1), right(logits, labels))
    assert bins == [pytest.approx((0.85, 0.6, 10))]
    assert error == pytest.approx(0.25)


def failed(found, stored=None):
    return {check.name for check in checks(found, stored) if check.raised}


def test_checks_say_what_was_found_and_whether_the_run_found_it_too():
    found = examined()
    assert failed(found, 0.5) == set()
    assert failed(found, 0.6) == {"another result than stored"}
    assert failed(found._replace(total=100), 0.6) == set()  # other images
    masked = Finding("zero gradients", 0.7, 0.1, "share of images without one", "look for rounding")
    assert checks(found._replace(findings=(masked,)), None)[0] is masked
    assert masked.measured == "share of images without one 0.7, at most 0.1"
    found.attacked[0, 0] = torch.nan
    assert failed(found) == {"NaN under attack"}
