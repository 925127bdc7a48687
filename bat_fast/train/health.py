"""Numbers that are no longer finite."""

from __future__ import annotations

from bat_fast.runs.folder import RunFolder


def diverged(folder: RunFolder, epoch: int, loss: float) -> str:
    """What is to be said about an epoch, counted from 0, whose loss is not finite."""
    good = f"the last good checkpoint is {folder.last} (epoch {epoch})" if epoch else "none was saved"
    return f"the training loss became {loss} in epoch {epoch + 1}; {good}; try a lower --optim.lr"
