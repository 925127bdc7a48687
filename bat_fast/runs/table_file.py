"""Tables of one row for each image, as files that other programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bat_fast._atomic import atomic_text, atomic_write
from bat_fast._install import install

PARQUET = ".parquet"


def check_table(file: Path) -> None:
    """Raise ImportError if ``file`` ends in ``.parquet`` and pyarrow is not installed."""
    if file.suffix == PARQUET and not has_parquet():
        raise ImportError(f"{file.name} needs pyarrow: {install('pyarrow', 'parquet')}")


def has_parquet() -> bool:
    """Whether pyarrow is installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


def write_table(file: Path, columns: Mapping[str, Any]) -> None:
    """Write columns of equal length: as Parquet where the file ends in ``.parquet``, else as CSV.

    Args:
        file: replaced as a whole.
        columns: by name, in order; lists or arrays of one dimension.

    Raises:
        ImportError: Parquet is asked for and pyarrow is not installed; the message has the command.
    """
    check_table(file)
    if file.suffix == PARQUET:
        import pyarrow as pa
        import pyarrow.parquet

        content = io.BytesIO()
        pa.parquet.write_table(pa.table(dict(columns)), content)
        atomic_write(file, lambda opened: opened.write(content.getvalue()))
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    atomic_text(file, text.getvalue())
