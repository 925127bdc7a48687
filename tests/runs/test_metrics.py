from bat_fast.runs.metrics import renamed, title, untitled


def test_a_row_of_an_earlier_version_has_the_names_of_today():
    row = {"epoch": 3, "val/clean_acc": 0.9, "val/autoattack_acc": 0.5}
    assert renamed(row) == {"epoch": 3, "val/clean_acc": 0.9, "val/aa_acc": 0.5}


def test_what_a_title_adds_is_read_back():
    for step in (1.0, 0.003, 0.0001):
        shown = title("pgd20", {"eps": 0.5, "step_size": step})
        assert untitled(shown) == f"pgd20-step{step:g}"
