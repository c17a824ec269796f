"""Projectors and joint encoders: from raw features to a latent of width d. Every method uses the same ones."""

from methods.encoders.choice import EncoderConfig, cannot_encode, joint_encoder, projector
from methods.encoders.conditioned import Conditioned
from methods.encoders.layers import DropoutHead, Residual, mlp, residual_head, unit

__all__ = [
    "Conditioned",
    "DropoutHead",
    "EncoderConfig",
    "Residual",
    "cannot_encode",
    "joint_encoder",
    "mlp",
    "projector",
    "residual_head",
    "unit",
]
