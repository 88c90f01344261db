"""How a head turns and tilts of itself, where nothing that is said tells which way: a process that is measured.

    d_t = λ d_{t-1} + v_t
    v_t = (1 - f) v_{t-1} + g (v_{t-1} - v_{t-2}) + h (v_{t-1} - 2 v_{t-2} + v_{t-3}) + e_t

d is how far the head is from where its portrait has it, v how fast it goes, per coordinate. A head is heavy, so its
speed is smooth (f, g, h), and it comes home slowly (λ < 1). The e_t are drawn each by itself, with the distribution
that they have among people: nearly always next to nothing, now and then a push, after which the head swings over into
another direction and stays there. People turn away further now and then than a portrait can be shown to; so no push is
stronger than brings the head to `reach`.

A network that drew the e_t from what it saw of its own past made heads float: between one and four swings a second
yaw had a third of people's movement, and above five half as much again. Pushes are a hundred times as large as what is
drawn in between, and what leads up to one is not to be seen in the noise of one's own past.

Notation: M frames, L coordinates of the motion code, K frames of memory, Q quantiles.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

OUTERMOST, QUANTILES = 4.0, 129  # quantiles are kept for normal noise of -OUTERMOST to OUTERMOST
FRAMES = 4  # of the past that it takes
STILL = 1e-3  # steps of a face (coordinates) much smaller than this choose nothing


class HeadSway(nn.Module):
    """The process of some coordinates; one that is new moves none.

    Buffers (L,): `sways`, which ones; `persistence` λ; `friction` f; `follows` (2, L), g and h; `most` (2, L), the
    largest speed and change of speed that are a head's own; `quantiles` (Q, L) of e; `reach`, in coordinates from home;
    `ahead` (5, L), by which d and the three last speeds and e say where the head will be when it has swung over. (f and
    not 1 - f, for weights are kept in half precision.)
    """

    sways: Tensor
    persistence: Tensor
    friction: Tensor
    follows: Tensor
    most: Tensor
    quantiles: Tensor
    reach: Tensor
    ahead: Tensor
    turned: Tensor

    def __init__(self, size: int) -> None:
        """size: L."""
        super().__init__()
        self.register_buffer("sways", torch.zeros(size, dtype=torch.bool))
        for name in ("persistence", "friction", "reach"):
            self.register_buffer(name, torch.zeros(size))
        for name, count in {"follows": 2, "most": 2, "quantiles": QUANTILES, "ahead": 5}.items():
            self.register_buffer(name, torch.zeros(count, size))
        places = torch.arange(size)
        self.register_buffer("turned", (places[:, None] + places) % size, persistent=False)

    def forward(self, recent: Tensor, home: Tensor, noise: Tensor) -> Tensor:
        """The next frame's coordinates (M, L), of which those that sway count: after recent (M, K, L), newest first,
        around home (M, L), from standard normal noise (M, L)."""
        away = recent[:, :FRAMES] - home[:, None]
        speeds = away[:, :-1] - self.persistence * away[:, 1:]  # (M, 3, L)
        push = self.pushes(self.chosen(noise, recent[:, 0] - recent[:, 1]))
        push = self.bounded(push, away[:, 0], speeds)
        return home + self.persistence * away[:, 0] + self.carried_on(speeds) + push

    def carried_on(self, speeds: Tensor) -> Tensor:
        """The speed (M, L) of a frame that brings no push, after `speeds` (M, 3, L), newest first. A head that was
        taken elsewhere by a control has not swung there: it stays."""
        last, before, first = speeds.unbind(1)
        change, old_change = last - before, before - first
        follow, sharper = self.follows
        speed = (1 - self.friction) * last + follow * change + sharper * (change - old_change)
        most_speed, most_change = self.most
        own = torch.maximum(change.abs(), old_change.abs()) <= most_change
        return torch.where(own, torch.clamp(speed, -most_speed, most_speed), 0.0)

    def chosen(self, noise: Tensor, step: Tensor) -> Tensor:
        """Standard normal noise (M, L) as the last step (M, L) of the face chooses it: a sum along its direction.
        Nothing else here hears the voice: one seed would turn all heads in the same moments, whatever they say."""
        size = (step.square().sum(1, keepdim=True) + STILL**2).sqrt()
        return ((noise[:, self.turned] * step[:, None]).sum(2) + STILL * noise) / size

    def pushes(self, noise: Tensor) -> Tensor:
        """Standard normal noise (M, L) -> e (M, L): the quantile that the noise is of a normal distribution."""
        place = (noise.clamp(-OUTERMOST, OUTERMOST) + OUTERMOST) * ((QUANTILES - 1) / (2 * OUTERMOST))
        below = place.floor().clamp(max=QUANTILES - 2).long()
        low, high = (self.quantiles.gather(0, index) for index in (below, below + 1))
        return torch.lerp(low, high, place - below)

    def bounded(self, push: Tensor, away: Tensor, speeds: Tensor) -> Tensor:
        """A push (M, L), weakened where it would bring a head that is `away` (M, L), with `speeds` (M, 3, L), out of
        reach."""
        *weights, gain = self.ahead
        there = weights[0] * away + (torch.stack(weights[1:]) * speeds).sum(1)
        largest, smallest = ((side * self.reach - there) / gain.clamp_min(1e-6) for side in (1, -1))
        return torch.maximum(torch.minimum(push, largest.clamp_min(0)), smallest.clamp_max(0))
