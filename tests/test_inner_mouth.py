"""The code of a mouth's inside: opinions add up, what shows nothing says nothing, and the refiner draws what it is
told."""

import torch

from eartalking.autoencoder.inner_mouth import Belief, InnerMouth
from eartalking.autoencoder.part_refiner import PartRefiner
from eartalking.autoencoder.portrait_parts import Parts
from eartalking.config import TINY
from eartalking.training.part_cuts import other_pictures
from eartalking.training.refiner import RefinerTrainer


def opinions(means: list[float], certainties: list[float]) -> torch.Tensor:
    return torch.tensor([list(pair) for pair in zip(means, certainties, strict=True)])[None]  # (1, K, 2)


def test_certain_pictures_decide_and_unseen_ones_do_not_count() -> None:
    told = opinions([2.0, -1.0, 7.0], [1000.0, -50.0, 1000.0])
    belief = InnerMouth.believe(told, torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(belief.mean, torch.tensor([[2.0]]), atol=0.01, rtol=0)
    assert belief.variance.item() < 0.01


def test_what_no_picture_tells_is_what_is_known_of_people() -> None:
    belief = InnerMouth.believe(opinions([5.0], [-50.0]), torch.ones(1, 1))
    torch.testing.assert_close(belief.mean, torch.zeros(1, 1))
    torch.testing.assert_close(belief.variance, torch.ones(1, 1))


def test_opinions_add_up_in_any_order() -> None:
    told = opinions([1.0, 2.0, -3.0], [4.0, 5.0, 3.0])
    seen = torch.ones(1, 3)
    one, other = InnerMouth.believe(told, seen), InnerMouth.believe(told.flip(1), seen)
    torch.testing.assert_close(one.mean, other.mean)
    assert one.variance < InnerMouth.believe(told[:, :2], seen[:, :2]).variance, "who saw more is surer"


def test_the_divergence_is_pytorchs() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (
        Belief(torch.randn(3, 4, generator=generator), torch.rand(3, 4, generator=generator) + 0.1) for _ in range(2)
    )
    normal = (torch.distributions.Normal(belief.mean, belief.variance.sqrt()) for belief in (one, other))
    expected = torch.distributions.kl_divergence(*normal).sum(1)
    torch.testing.assert_close(one.divergence(other), expected)
    torch.testing.assert_close(one.divergence(one), torch.zeros(3))


def test_a_mouth_is_drawn_by_its_code_and_eyes_are_not() -> None:
    torch.manual_seed(0)
    refiner = PartRefiner(TINY.autoencoder).eval()
    for net in (refiner.eye, refiner.mouth):
        torch.nn.init.normal_(net.conv_out.weight, std=0.5)
        torch.nn.init.normal_(net.last.conv2.weight, std=0.5)
    eyes, mouth, motion = torch.rand(1, 2, 3, 40, 48), torch.rand(1, 3, 64, 72), torch.randn(1, 60)
    parts = Parts(eyes, eyes, mouth, torch.rand(1, 3, 2), motion, torch.zeros(1, 4))
    a, b = torch.zeros(1, 4), torch.ones(1, 4)

    def drawn(code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return refiner.additions(motion, torch.zeros(1, 2), eyes, mouth, parts._replace(code=code), 256)

    assert not torch.allclose(drawn(a)[1], drawn(b)[1])
    torch.testing.assert_close(drawn(a)[0], drawn(b)[0])


def test_the_code_is_read_from_the_portraits_mouth_alone() -> None:
    torch.manual_seed(0)
    refiner = PartRefiner(TINY.autoencoder).eval()
    torch.nn.init.normal_(refiner.inner_mouth.out.weight)
    landmarks = torch.tensor([[[0.35, 0.4], [0.62, 0.4], [0.5, 0.7]]])
    portrait, motion = torch.rand(1, 3, 256, 256), torch.randn(1, 60)
    marks = torch.zeros(1, 510, 3)

    def code_of(picture: torch.Tensor) -> torch.Tensor:
        return refiner.parts(picture, marks, motion, landmarks).code

    code = code_of(portrait)
    assert code.shape == (1, 4) and code.any()
    elsewhere, mouth = portrait.clone(), portrait.clone()
    elsewhere[..., :100, :] = 0
    mouth[..., 170:190, 110:140] = 0
    torch.testing.assert_close(code_of(elsewhere), code)
    assert not torch.allclose(code_of(mouth), code)


def test_other_pictures_are_of_the_same_person_and_not_the_same() -> None:
    person = torch.tensor([0, 0, 0, 7, 7, 7, 3, 3, 3, 0, 7, 3])  # stills, then portraits
    chosen = torch.arange(12).repeat(20)
    others = other_pictures(person, chosen, 2)
    assert others.shape == (240, 2)
    assert (person[others] == person[chosen][:, None]).all() and (others != chosen[:, None]).all()
    assert (others[:, 0] != others[:, 1]).all(), "each one once"
    assert other_pictures(person, chosen, 9).shape == (240, 3), "no more than there are"


def test_a_refiner_without_a_code_trains_as_one_with() -> None:
    for channels in (0, 4):
        torch.manual_seed(0)
        config = TINY.autoencoder.__class__(**{**vars(TINY.autoencoder), "mouth_channels": channels})
        trainer = RefinerTrainer(PartRefiner(config), 256)
        batch = {f"eyes_{kind}": torch.rand(2, 2, 3, 40, 48) for kind in ("decoded", "portrait", "lidded")}
        batch |= {f"mouth_{kind}": torch.rand(2, 3, 64, 72) for kind in ("decoded", "portrait")}
        batch |= {"motion": torch.randn(2, 60), "own": torch.randn(2, 60), "told_motion": torch.randn(2, 4, 60)}
        batch |= {"told": torch.rand(2, 4, 3, 64, 72), "seen": torch.ones(2, 4), "turn": torch.zeros(2, 2)}
        batch |= {name: torch.rand(2, 3, 2) for name in ("landmarks", "portrait_landmarks")}
        eyes, mouth, landmarks, untold = trainer(batch)
        assert eyes.shape == (2, 2, 3, 40, 48) and mouth.shape == (2, 3, 64, 72) and landmarks.shape == (2, 3, 2)
        assert untold.shape == (2,) and bool(untold.any()) == bool(channels)
