"""What a check of a model has measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """What one check measured."""

    name: str
    value: float
    threshold: float
    """The check raises where ``value`` is above it."""
    meaning: str
    """What the value is, in one line."""
    fix: str
    """What to do where the check raises, in one line."""

    @property
    def raised(self) -> bool:
        """Whether the value is above the threshold; a value that is no number is."""
        return not self.value <= self.threshold

    @property
    def measured(self) -> str:
        """What it is, and what it may be."""
        return f"{self.meaning} {self.value:.3g}, at most {self.threshold:.3g}"

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.name}: {self.meaning} {self.value:.3g}, more than {self.threshold:.3g}: {self.fix}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"raised": self.raised}
