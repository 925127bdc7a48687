import sys

import numpy as np
import pytest

from bat_fast.runs.table_file import check_table, write_table

COLUMNS = {"index": np.array([3, 1]), "q": np.array([0.25, np.nan]), "by": ["", "apgd-ce"]}


def test_csv(tmp_path):
    file = tmp_path / "a.csv"
    write_table(file, COLUMNS)
    assert file.read_text() == "index,q,by\n3,0.25,\n1,nan,apgd-ce\n"


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install pyarrow")
    file = tmp_path / "a.parquet"
    write_table(file, COLUMNS)
    found = parquet.read_table(file).to_pydict()
    assert list(found) == list(COLUMNS)
    assert (found["index"], found["by"]) == ([3, 1], ["", "apgd-ce"])
    assert found["q"] == pytest.approx([0.25, np.nan], nan_ok=True)
    assert list(tmp_path.iterdir()) == [file]


def test_without_pyarrow_the_command_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    check_table(tmp_path / "a.csv")
    with pytest.raises(ImportError, match=r"a\.parquet needs pyarrow: pip install pyarrow"):
        write_table(tmp_path / "a.parquet", COLUMNS)
    assert not list(tmp_path.iterdir())
