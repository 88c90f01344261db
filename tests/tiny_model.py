"""What tests stream with: the smallest model, of random weights."""

import dataclasses

import torch

from eartalking import TalkingHeadModel
from eartalking.config import TINY, DepartureConfig, ModelConfig
from eartalking.modules.head_sway import HeadSway
from eartalking.training.head_sway import SWAYING

MASKED_AR = dataclasses.replace(TINY, emission="masked_ar")
DRAWN = dataclasses.replace(
    TINY, emission="regression", temperature=0.0, departure=DepartureConfig(memory=4, dim=16, depth=1, num_steps=2)
)


def tiny_model(config: ModelConfig = TINY) -> TalkingHeadModel:
    """Random weights of which every one counts, none hidden behind a zero initialisation, so that every control changes
    the picture.
    """
    torch.manual_seed(0)
    model = TalkingHeadModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.1)
    if model.departure_head is not None:
        sway_somehow(model.departure_head.sway)
    return model


def sway_somehow(sway: HeadSway) -> None:
    """Yaw and roll that sway, by round numbers."""
    sway.sways[list(SWAYING)] = True
    sway.persistence.fill_(0.95)
    sway.friction.fill_(0.2)
    sway.follows.fill_(0.1)
    sway.most.fill_(2)
    sway.reach.fill_(3)
    sway.ahead.copy_(torch.tensor([0.9, 1.0, 0.0, 0.0, 1.0])[:, None])
    sway.quantiles.copy_(torch.linspace(-0.2, 0.2, len(sway.quantiles))[:, None])
