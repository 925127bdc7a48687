"""A number that may be written as a fraction. Standard library only."""

from __future__ import annotations

from typing import Any


class Ratio(float):
    """A float that may be written as a fraction and remembers how it was written (``8/255``)."""

    text: str

    def __new__(cls, value: float | str) -> Ratio:
        text = str(value).strip()
        try:
            parts = [float(part) for part in text.split("/")]
            number = parts[0] if len(parts) == 1 else parts[0] / parts[1]
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"expected a number or a fraction such as 8/255, got {text!r}") from None
        if len(parts) > 2:
            raise ValueError(f"expected a number or a fraction such as 8/255, got {text!r}")
        self = super().__new__(cls, number)
        self.text = text
        return self

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __getnewargs__(self) -> tuple[Any]:
        return (self.text,)
