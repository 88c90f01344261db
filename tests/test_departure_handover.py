"""A departure head for another backbone: it starts as its teacher, and learns to draw what that one draws."""

from __future__ import annotations

import torch

from eartalking.modules.departure_head import DepartureHead
from eartalking.training.departure import run
from eartalking.training.departure_handover import Handover, HeardTwice, look_alike

SIZE, FEATURES, SPANS, FRAMES, STEPS = 4, 8, 3, 60, 2


def make_head(seed: int) -> DepartureHead:
    """A head of random weights, which draws by what it hears."""
    torch.manual_seed(seed)
    head = DepartureHead(SIZE, memory=3, features=FEATURES, dim=32, depth=1)
    head.persistence.fill_(0.9)
    head.at_home[:2] = True
    for parameter in head.parameters():
        if not parameter.any():  # what starts at zero would be deaf
            torch.nn.init.normal_(parameter, std=0.3)
    return head.requires_grad_(False)


def heard(mixed: bool) -> HeardTwice:
    """Spans whose second backbone says the same as the first one, in other words if `mixed`."""
    generator = torch.Generator().manual_seed(3)
    teacher = torch.randn(SPANS, FRAMES, FEATURES, generator=generator)
    mixing = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator))[0] if mixed else torch.eye(FEATURES)
    mean = 0.1 * torch.randn(SPANS, FRAMES, SIZE, generator=generator)
    home = torch.randn(SPANS, SIZE, generator=generator)
    return HeardTwice(mean, mean, (teacher @ mixing).half(), teacher.half(), home)


def difference(head: DepartureHead, teacher: DepartureHead, spans: HeardTwice) -> float:
    """Of what the two draw by themselves from the same noise, in spreads of what the teacher draws."""
    own = run(head, spans.own, STEPS, 5, spans.home)
    theirs = run(teacher, spans.teachers, STEPS, 5, spans.home)
    return float((own - theirs).square().mean().sqrt() / theirs.std())


def test_on_the_same_features_the_head_is_its_teacher() -> None:
    head, teacher, spans = make_head(0), make_head(1), heard(mixed=False)
    assert difference(head, teacher, spans) > 0.3
    look_alike(head, teacher, spans, ridge=0.0)
    assert difference(head, teacher, spans) < 0.02


def test_what_is_said_in_other_words_is_found_by_least_squares_and_by_learning() -> None:
    head, teacher, spans = make_head(0), make_head(1), heard(mixed=True)
    head.load_state_dict(teacher.state_dict())
    deaf = difference(head, teacher, spans)
    refitted = make_head(0)
    look_alike(refitted, teacher, spans)
    assert difference(refitted, teacher, spans) < 0.5 * deaf
    handover = Handover(teacher, spans, STEPS, batch_size=64, seed=0)
    optimiser = torch.optim.Adam(head.requires_grad_(True).parameters(), 1e-3)
    first = float(handover.losses(head)["unexplained"].detach())
    for _ in range(200):
        optimiser.zero_grad()
        handover.losses(head)["loss"].backward()
        optimiser.step()
    assert float(handover.losses(head)["unexplained"].detach()) < 0.5 * first
    assert difference(head.requires_grad_(False), teacher, spans) < 0.7 * deaf


def test_a_stream_begins_at_its_portrait() -> None:
    spans = heard(mixed=False)
    head = make_head(0)
    head.innovation_std.fill_(1e-9)
    head.momentum.zero_()
    first = run(head, spans.own, STEPS, 0, spans.home)[:, 0]
    torch.testing.assert_close(first[:, :2], spans.home[:, :2])
    faded = spans.mean[:, 0] + 0.9 * (spans.home - spans.mean[:, 0])
    torch.testing.assert_close(first[:, 2:], faded[:, 2:])
