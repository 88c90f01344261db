"""Vectors along the channels of a map."""

import torch

from eartalking.modules.vectors import lengths


def test_lengths_are_norms_and_can_be_learnt_through_where_nothing_moves() -> None:
    vectors = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    vectors[:, :, 0] = 0
    vectors.requires_grad_()
    found = lengths(vectors)
    torch.testing.assert_close(found, vectors.norm(dim=1, keepdim=True), atol=1e-6, rtol=1e-6)
    found.sum().backward()
    assert vectors.grad is not None and not vectors.grad[:, :, 0].any()
    torch.testing.assert_close(vectors.grad.norm(dim=1)[:, 1:], torch.ones(2, 3, 5))
