"""Regression head: the conditional mean of a frame's latents alone, for models whose departure head draws."""

from __future__ import annotations

from torch import Tensor

from eartalking.modules.emission import EmissionHead


class RegressionHead(EmissionHead):
    """The mean that all emission heads have; what it leaves over is not modelled here."""

    def residual_loss(self, x_1: Tensor, cond: Tensor, sink: Tensor | None, weight: Tensor | None) -> Tensor:
        """Nothing to learn: 0."""
        return x_1.new_zeros(())

    def draw(self, noise: Tensor, temperature: float, cond: Tensor, sink: Tensor | None, num_steps: int) -> Tensor:
        """No residual: 0, whatever the noise."""
        return noise * 0
