"""What tests stream with: the smallest model, of random weights."""

import dataclasses

import torch

from eartalking import TalkingHeadModel
from eartalking.config import TINY, DepartureConfig, ModelConfig

MASKED_AR = dataclasses.replace(TINY, emission="masked_ar")
DRAWN = dataclasses.replace(
    TINY, emission="regression", temperature=0.0, departure=DepartureConfig(memory=3, dim=16, depth=1, num_steps=2)
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
    return model
