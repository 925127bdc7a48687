"""What the layers of a program may do for each other: order, writing in place, sums left to a neighbour."""

from __future__ import annotations

from bat_fast.attacks.engine.layers import ConvLayer, FlattenLayer, Layer
from bat_fast.attacks.engine.norms import AffineLayer


def arranged(layers: list[Layer]) -> list[Layer]:
    """``layers``, in an order in which they can run, arranged for each other."""
    _sampled_first(layers)
    _allow_overwriting(layers)
    _add_with_norm(layers)
    return layers


def _sampled_first(layers: list[Layer]) -> None:
    """Move convolutions that read every other pixel before those that read all.

    Their gradients then come last, and are added to what is there.
    """
    for number, layer in enumerate(layers):
        if isinstance(layer, ConvLayer) and layer.conv.step > 1 and layer.other is None:
            first = next(i for i, reader in enumerate(layers) if layer.sources[0] in reader.sources)
            layers.insert(first, layers.pop(number))


def _allow_overwriting(layers: list[Layer]) -> None:
    """Let a convolution add into the other branch where nobody looks at that again."""
    kept = {slot for layer in layers for slot in layer.keeps()}
    writers = {layer.target: layer for layer in layers if layer.overwrites()}
    views = {slot for layer in layers if isinstance(layer, FlattenLayer) for slot in layer.sources}
    for number, layer in enumerate(layers):
        if isinstance(layer, ConvLayer) and layer.other is not None:
            later = {slot for other in layers[number + 1 :] for slot in other.sources}
            layer.write_other = layer.other in writers and layer.other not in kept | views | later


def _add_with_norm(layers: list[Layer]) -> None:
    """Leave the sum of a residual branch to the norm behind it, which adds and scales in one pass.

    Only where that norm is the first to read the sum: it adds in place, and the others find it done.
    """
    for number, layer in enumerate(layers):
        if not isinstance(layer, ConvLayer) or layer.other is None or layer.conv.packed or layer.act:
            continue
        readers = [reader for reader in layers[number + 1 :] if layer.target in reader.sources]
        first = readers[0] if readers else None
        if isinstance(first, AffineLayer) and first.by_bits and first.other is None:
            layer.adds_later, first.other = True, layer.other
            first.sources = (*first.sources, layer.other)
