"""Engines: ways to run the model inside the loop of an attack that leave its result the same.

A loop is handed an `AttackedModel` (attacked_model.py): logits, the gradient at the pixels, and where an
engine has it, all steps of PGD at once. select.py chooses the engine and runs the loop.

`Plain`, also in attacked_model.py, is the model itself under autograd. The frozen engine makes a program::

    model     -> trace.py      a graph of operations; names.py looks up what its names refer to
    graph     -> fuse.py       layers: batch norm folded, ReLU and sums fused (weights.py holds the weights);
                               arrange.py, what they do for each other
    layers    -> program.py    run forward and backward, with gradients.py between the layers:
                               layers.py       the base, linear layers, pooling, sums
                               convolution.py  convolutions; adjoint.py, their gradient at the input
                               matrix.py       products of matrices
                               norms.py        batch norms that are not folded
                               pointwise.py    activations
                               segment.py      everything else, under autograd
    program   -> freeze.py     compares it with the model, and keeps it
    program   -> select.py     takes over the weights at every call, and runs the loop on it

Beside this line, small.py replaces the program of a small network on a CPU by one native call, for which
plan.py lays out values and weights; cuda_graph.py captures all of an attack on a GPU.
"""

from bat_fast.attacks.engine.attacked_model import AttackedModel, Plain
from bat_fast.attacks.engine.select import ENGINES, Engine, Loop
from bat_fast.attacks.engine.small import SmallNetwork

__all__ = ["ENGINES", "AttackedModel", "Engine", "Loop", "Plain", "SmallNetwork"]
