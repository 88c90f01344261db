"""Departure head: how a face departs from its conditional mean, drawn so that motion is continuous and lives.

The regression says where a face is on average; a face that only does that hardly turns, nods or looks about. What is
shown is the mean and a departure from it, y_t = mean_t + r_t, that is carried on and renewed from frame to frame:

    r_t = A r_{t-1} + m (y_{t-1} - y_{t-2}) + e_t,    A < 1, m < 1 per coordinate.

Only the innovation e_t is drawn, by flow matching, in units of its own spread. So the departure's spread is bounded by
construction and its speed is the data's. Head pose and translation live around the portrait's own instead of around the
mean, for nothing in a voice says where a head is; they alone have a momentum m, for a head is heavy: what is new in it
is how it speeds up, a tenth of how it moves, and a draw that is a tenth wrong would shake it.

Yaw and roll sway as measured among people (`modules.head_sway`): the rest of this is not about them.

The network sees the backbone's features of the frame (what is said) and the last frames as they were shown (how the
face moves). x_0 is noise, x_1 = e_t / innovation_std, t in [0, 1] goes from the one to the other; velocity = x_1 - x_0
(rectified flow: Liu, Gong and Liu 2023).

Notation: M frames (batch and time folded), L coordinates of the motion code, K frames of memory, F features of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.modules.emission import TIME_FREQUENCIES, time_features
from eartalking.modules.head_sway import HeadSway
from eartalking.modules.transformer import zero_init

# What the network is shown of a coordinate's steps and of its size, in units of their spread, and the largest
# innovation that it learns: jumps must not decide what is learnt of everything else.
LARGEST_STEP, LARGEST_SIZE, LARGEST_INNOVATION = 8.0, 4.0, 12.0
MEMORY_WIDTH = 512
# A head that has gone, or was set by a control that is released, further than WANDERS of its spread from the portrait's
# pose loses this share of the way beyond in every frame.
WANDERS, RETURNS = 2.0, 0.05


@dataclass
class DepartureState:
    """The portrait's coordinates (B, L), those of the last K frames as shown, newest first (B, K, L), and the last
    frame's departure (B, L)."""

    home: Tensor
    recent: Tensor
    departure: Tensor

    def clone(self) -> DepartureState:
        return DepartureState(**{item.name: getattr(self, item.name).clone() for item in fields(self)})

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """Flat copies, ready for safetensors."""
        return {f"{prefix}{item.name}": getattr(self, item.name).clone() for item in fields(self)}

    def load_tensors(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """Take over what `to_tensors` gave; KeyError or ValueError if it does not fit."""
        for item in fields(self):
            mine, theirs = getattr(self, item.name), tensors[f"{prefix}{item.name}"]
            if mine.shape != theirs.shape:
                raise ValueError(f"{prefix}{item.name}: shape {tuple(theirs.shape)}, expected {tuple(mine.shape)}")
            setattr(self, item.name, theirs.to(mine))


class DepartureHead(nn.Module):
    """Draws the innovation of one frame; owns its statistics, its loss and its sampler.

    Buffers (L,): `persistence` A; `momentum` m; `innovation_std`, `step_std` and `departure_std`, the spreads of e, of
    what is shown from frame to frame, and of r; `noise_scale`, how much of the noise each coordinate gets (0: nothing
    new is drawn of it, its departure only fades); `at_home`, which coordinates live around the portrait's own;
    `neutral`, the coordinates of a face that rests and looks ahead.
    """

    persistence: Tensor
    momentum: Tensor
    innovation_std: Tensor
    step_std: Tensor
    departure_std: Tensor
    noise_scale: Tensor
    at_home: Tensor
    neutral: Tensor

    def __init__(self, size: int, memory: int, features: int, dim: int, depth: int) -> None:
        """size: L. memory: K. features: F."""
        super().__init__()
        self.memory = memory
        for name in ("innovation_std", "step_std", "departure_std", "noise_scale"):
            self.register_buffer(name, torch.ones(size))
        for name in ("persistence", "momentum", "neutral"):
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("at_home", torch.zeros(size, dtype=torch.bool))
        self.sway = HeadSway(size)
        self.features_norm = nn.LayerNorm(features)
        self.from_features = nn.Linear(features, dim)
        self.from_memory = nn.Sequential(
            nn.Linear(size * (memory + 2), MEMORY_WIDTH), nn.SiLU(), nn.Linear(MEMORY_WIDTH, dim)
        )
        self.from_time = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.from_noise = nn.Linear(size, dim)
        self.blocks = nn.ModuleList(ModulatedBlock(dim) for _ in range(depth))
        self.to_velocity = zero_init(nn.Linear(dim, size))

    def start(self, portrait: Tensor) -> DepartureState:
        """A stream begins as its portrait (B, L) stands; what it departs by is known with the first mean."""
        return DepartureState(portrait, portrait[:, None].repeat(1, self.memory, 1), torch.zeros_like(portrait))

    def centre(self, mean: Tensor, home: Tensor) -> Tensor:
        """What a face departs from: the mean (M, L), but for the coordinates that live around the portrait's own."""
        return torch.where(self.at_home, home, mean)

    def condition(self, features: Tensor, recent: Tensor, centre: Tensor, departure: Tensor, home: Tensor) -> Tensor:
        """What the innovation depends on: (M, D).

        features (M, F) of the backbone; recent (M, K, L), the last frames as shown, newest first; centre (M, L) of the
        frame; departure (M, L) of the frame before; home (M, L), the portrait's coordinates.
        """
        turned = torch.where(self.at_home, home - self.neutral, 0.0)  # a turned portrait moves like one that is not
        steps = ((recent[:, :-1] - recent[:, 1:]) / self.step_std).clamp(-LARGEST_STEP, LARGEST_STEP)
        newest, around, away = (
            (part / self.departure_std).clamp(-LARGEST_SIZE, LARGEST_SIZE)
            for part in (recent[:, 0] - turned, centre - turned, departure)
        )
        memory = torch.cat([newest, steps.flatten(1), around, away], dim=1)
        return self.from_features(self.features_norm(features.float())) + self.from_memory(memory)

    def carried_on(self, departure: Tensor, recent: Tensor) -> Tensor:
        """The departure (M, L) of a frame that brings nothing new, after `departure` (M, L) and `recent` (M, K, L)."""
        largest = LARGEST_STEP * self.step_std  # a head that was set elsewhere by a control has not swung there
        step = torch.clamp(recent[:, 0] - recent[:, 1], -largest, largest)
        inside = WANDERS * self.departure_std
        beyond = torch.where(self.at_home, departure - torch.clamp(departure, -inside, inside), 0.0)
        return self.persistence * departure + self.momentum * step - RETURNS * beyond

    def velocity(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """x_t (M, L), t (M,), what `condition` gave -> velocity (M, L)."""
        return self._velocity(x, self._modulations(t, condition))

    def _modulations(self, t: Tensor, condition: Tensor) -> list[Tensor]:
        """t (...,), condition (..., D) -> each block's modulation (..., 3 D)."""
        known = F.silu(condition + self.from_time(time_features(t)))
        return [block.modulation(known) for block in self.blocks]

    def _velocity(self, x: Tensor, modulations: list[Tensor]) -> Tensor:
        hidden = self.from_noise(x)
        for block, modulation in zip(self.blocks, modulations, strict=True):
            hidden = block(hidden, modulation)
        return self.to_velocity(F.layer_norm(hidden, hidden.shape[-1:]))

    def loss(self, innovation: Tensor, condition: Tensor, draws: int) -> Tensor:
        """Squared error of the velocity per coordinate (L,), 0 where nothing is drawn, for true innovations (M, L),
        over several noise draws."""
        drawn = self.noise_scale > 0
        x_1 = (innovation / self.innovation_std).clamp(-LARGEST_INNOVATION, LARGEST_INNOVATION).repeat(draws, 1) * drawn
        x_0 = torch.randn_like(x_1) * drawn
        t = torch.sigmoid(torch.randn(len(x_1), device=x_1.device))  # logit-normal: most effort mid-way
        velocity = self.velocity(torch.lerp(x_0, x_1, t[:, None]), t, condition.repeat(draws, 1))
        return (velocity - (x_1 - x_0)).square().mean(0) * drawn

    def sample(self, condition: Tensor, noise: Tensor, num_steps: int, swayed: Tensor | None = None) -> Tensor:
        """Innovations (M, L) out of standard normal noise (M, L), by Euler's steps along the velocity. Those of what
        sways may be known: `swayed` (M, L); the others are then drawn as they go with these."""
        start, drawn = self.noise_scale * noise, self.noise_scale > 0
        x = start
        # All steps' modulations at once: for single frames, reading the weights is what takes the time.
        times = torch.arange(num_steps, device=x.device)[:, None].expand(-1, len(x)) / num_steps
        for time, *modulations in zip(times[:, :1], *self._modulations(times, condition), strict=True):
            if swayed is not None:
                x = torch.where(self.sway.sways, torch.lerp(start, swayed / self.innovation_std, time), x)
            x = x + drawn * self._velocity(x, modulations) / num_steps
        return x * self.innovation_std

    def draw(self, features: Tensor, mean: Tensor, noise: Tensor, state: DepartureState, num_steps: int) -> Tensor:
        """Coordinates (B, L) of the next frame around its mean (B, L); `remember` moves the state on."""
        centre = self.centre(mean, state.home)
        condition = self.condition(features, state.recent, centre, state.departure, state.home)
        carried = centre + self.carried_on(state.departure, state.recent)
        if not self.sway.sways.any():
            return carried + self.sample(condition, noise, num_steps)
        swayed = self.sway(state.recent, state.home, noise)
        largest = LARGEST_INNOVATION * self.innovation_std
        known = torch.clamp(swayed - carried, -largest, largest)
        return torch.where(self.sway.sways, swayed, carried + self.sample(condition, noise, num_steps, known))

    def remember(self, shown: Tensor, mean: Tensor, state: DepartureState) -> None:
        """Move the state on to a frame that was shown as `shown` (B, L)."""
        state.departure = shown - self.centre(mean, state.home)
        state.recent = torch.cat([shown[:, None], state.recent[:, :-1]], dim=1)


class ModulatedBlock(nn.Module):
    """A residual MLP whose norm is scaled and shifted, and whose output is gated (adaLN); `modulation` makes these
    numbers of a condition (M, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.modulation = zero_init(nn.Linear(dim, 3 * dim))
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x (M, D), modulation (M, 3 D) -> (M, D)."""
        shift, scale, gate = modulation.chunk(3, dim=-1)
        hidden = torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)
        return torch.addcmul(x, 1 + gate, self.mlp(hidden))
