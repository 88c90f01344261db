"""What a take writes down: its control log and the frames of its slot."""

from __future__ import annotations

import numpy as np
import pytest

from demo.channel import Slot, controls_of
from eartalking import Controls
from eartalking.controls import ControlFrame


def test_the_log_gives_every_frame_its_exact_values() -> None:
    random = np.random.default_rng(0)
    frames = []
    for _ in range(200):
        values = {"yaw": float(random.choice([-7.3, 0.1, 12.000000001]))} if random.random() < 0.7 else {}
        if random.random() < 0.5:
            values["emotion"] = ("happy", float(random.choice([0.1, 0.3])))
        frames.append(ControlFrame(values))
    log = controls_of(frames)
    assert [log.at(index) for index in range(200)] == frames


def test_a_slot_says_what_was_written() -> None:
    slot = Slot(10)
    slot.write_plan(Controls({"pitch": [(0.0, 0.0), (0.2, 5.0)]}), 0, 10)
    slot.write("pitch", 7, None)
    slot.write("emotion", 2, ("contempt", 1.0))
    assert slot.at(1)["pitch"] == pytest.approx(1.0) and slot.at(6)["pitch"] == 5.0 and slot.at(7)["pitch"] is None
    assert slot.at(1)["emotion"] is None and slot.at(9)["emotion"] == ("contempt", 1.0)
    slot.clear()
    assert not slot.at(3).given()
