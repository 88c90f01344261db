"""What the emission heads learn in their tests: frames of a few tokens, of two classes, each with two narrow modes."""

import torch
from torch import Tensor

from eartalking.modules.emission import EmissionHead

CHANNELS, COND_DIM = 2, 8
CLASS_COND = torch.nn.functional.one_hot(torch.arange(2), COND_DIM).float()  # what the head sees of a class
CLASS_MEAN = torch.tensor([[3.0, -1.0], [-2.0, 0.5]])
MODE_OFFSET = torch.tensor([1.0, 0.6])  # each class is two narrow modes at mean +- this, the same for all tokens
MODE_STD = 0.1


def draw_toy(count: int, num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """latents (count, N, C), cond (count, N, Dc), class (count,)."""
    label = torch.randint(2, (count,))
    sign = torch.randint(2, (count, 1, 1)) * 2.0 - 1.0
    latents = CLASS_MEAN[label][:, None] + sign * MODE_OFFSET + MODE_STD * torch.randn(count, num_tokens, CHANNELS)
    return latents, CLASS_COND[label][:, None].expand(-1, num_tokens, -1), label


def fit(head: EmissionHead, num_tokens: int, steps: int, batch_size: int, learning_rate: float) -> None:
    """Train the head on the toy; it is in eval mode afterwards."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        latents, cond, _ = draw_toy(batch_size, num_tokens)
        loss = head.loss(latents, cond)
        optimizer.zero_grad()
        (loss.residual + loss.regression).backward()
        optimizer.step()
        schedule.step()
    head.eval()
