"""Adversarial training in the ``Trainer`` of transformers: ``pip install transformers accelerate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bat_fast.integrations.attacker import Attacker, host

_HOST = host("transformers")


class AdversarialTrainer(_HOST.Trainer):  # type: ignore[misc, name-defined]
    """A ``Trainer`` of image classifiers which trains on adversarial ``pixel_values``, in its own precision.

    Evaluation sees clean images.

    Args:
        args, options: positional and by name, of the host.
        attack: options of `bat_fast.PGD`, such as ``{"eps": 8 / 255, "steps": 10}``.
        image_mean, image_std: of the image processor, by which ``pixel_values`` are normalised: the attack
            then moves pixels in [0, 1]. Both None: they are pixels.

    Raises:
        ValueError: one of ``image_mean`` and ``image_std`` alone; or a batch without images or classes.
    """

    def __init__(
        self,
        *args: Any,
        attack: dict[str, Any] | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        if (image_mean is None) != (image_std is None):
            raise ValueError("image_mean and image_std belong together: give both of the image processor")
        super().__init__(*args, **options)
        self.attack, self.image_mean, self.image_std = attack or {}, image_mean, image_std
        self._attacker = Attacker()

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of the host, on adversarial images while the model is in train mode."""
        if model.training:
            missing = {"pixel_values", "labels"} - set(inputs)
            if missing:
                raise ValueError(f"inputs: {', '.join(sorted(missing))} missing; there are {list(inputs)}")
            inputs = inputs | {
                "pixel_values": self._attacked(model, inputs["pixel_values"], inputs["labels"])
            }
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _attacked(self, model: Any, x: Tensor, y: Tensor) -> Tensor:
        net = self.accelerator.unwrap_model(model)
        precision = "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else None
        options = {"precision": precision} | self.attack
        if self.image_mean is None or self.image_std is None:
            return self._attacker(net, x, y, **options)
        mean, std = (x.new_tensor(list(v)).view(-1, 1, 1) for v in (self.image_mean, self.image_std))
        pixels = (x * std + mean).clamp(0, 1)  # as they were before the image processor, but for rounding
        adversarial = self._attacker(
            net, pixels, y, mean=list(self.image_mean), std=list(self.image_std), **options
        )
        return (adversarial - mean) / std
