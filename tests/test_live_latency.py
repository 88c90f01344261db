"""What the benchmark of the Live tab makes of the pictures that it saw."""

import pytest

from benchmarks.live_latency import summary


def test_delays_rate_and_what_was_left_out() -> None:
    seen = [{"index": 2 * number, "ms": 100.0 + (number == 9), "at": 80.0 * number} for number in range(10)]
    found = summary(seen)
    assert found["sound_to_picture_ms"] == 120 and found["sound_to_picture_ms_p95"] == pytest.approx(120.6, abs=0.1)
    assert found["pictures_per_second"] == 12.5 and found["shown"] == 0.5
    with pytest.raises(ValueError, match="no pictures"):
        summary(seen[:1])
