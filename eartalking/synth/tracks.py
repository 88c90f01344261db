"""Building blocks of motion tracks: drift, steps, episodes, fixations, blinks and jumps.

All take `times`, the frame centres in seconds, and draw only from the generator they are given.
"""

from collections.abc import Callable, Iterable

import numpy as np

from eartalking.config import FPS


def drift(times: np.ndarray, rng: np.random.Generator, timescale: float) -> np.ndarray:
    """Smooth noise of about unit variance that changes over `timescale` seconds: (T,)."""
    width = timescale * FPS
    reach = int(4 * width) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    noise = rng.normal(0, 1, len(times) + 2 * reach)
    return np.convolve(noise, kernel / np.sqrt(np.sum(kernel**2)), "valid")


def smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, with zero speed and acceleration at both ends (minimum jerk)."""
    x = np.clip(x, 0.0, 1.0)
    return x**3 * (10 - 15 * x + 6 * x**2)


def random_times(times: np.ndarray, rng: np.random.Generator, every: tuple[float, float]) -> list[float]:
    """Event times at random intervals (seconds, uniform between the two); the first may come at once."""
    end = times[-1] if len(times) else 0.0
    found, time = [], rng.uniform(0, every[1])
    while time < end:
        found.append(time)
        time += rng.uniform(*every)
    return found


def steps(
    times: np.ndarray, rng: np.random.Generator, every: tuple[float, float], draw: Callable[[], np.ndarray]
) -> np.ndarray:
    """Levels drawn one after the other, each reached smoothly in 0.3 to 0.9 s: (T, D)."""
    level = np.asarray(draw())
    track = np.broadcast_to(level, (len(times), level.size)).astype(np.float64)
    for time in random_times(times, rng, every):
        new_level = np.asarray(draw())
        track += (new_level - level) * smooth_step((times - time) / rng.uniform(0.3, 0.9))[:, None]
        level = new_level
    return track


def episodes(times: np.ndarray, rng: np.random.Generator, share: float, draw: Callable[[], float]) -> np.ndarray:
    """A track that is 0 but for episodes of 1.5 to 5 s at a drawn level, about `share` of the time: (T,)."""
    track = np.zeros(len(times))
    if not len(times) or share <= 0:
        return track
    time = rng.uniform(-3.0, 3.0)
    while time < times[-1]:
        length = rng.uniform(1.5, 5.0)
        if rng.random() < share:
            rise, fall = rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9)
            track += draw() * smooth_step((times - time) / rise) * (1 - smooth_step((times - time - length) / fall))
            time += fall
        time += length
    return track


def add_bumps(track: np.ndarray, times: np.ndarray, at: Iterable[float], size: float, width: float) -> None:
    """Add a bell of that size and standard deviation (seconds) to the track at each time, in place."""
    for time in at:
        track += size * np.exp(-0.5 * ((times - time) / width) ** 2)


def fixations(times: np.ndarray, head: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """Eyes that rest on the camera or beside it and move on in saccades.

    Args:
        head: (T, 2) yaw and pitch of the head, degrees; looking at the camera means turning against it.

    Returns:
        (T, 2) gaze relative to the head in degrees, and the times of the large shifts.
    """
    gaze, large = np.zeros((len(times), 2)), []
    contact = rng.uniform(0.4, 0.9)  # how much this person looks at the camera
    begins = [0.0, *random_times(times, rng, (0.3, 2.5))]
    previous = np.zeros(2)
    for begin, end in zip(begins, [*begins[1:], np.inf], strict=True):
        span = (times >= begin) & (times < end)
        offset = rng.normal(0, 1.0, 2) if rng.random() < contact else rng.normal(0, [9.0, 5.0])
        # The eyes hold their direction in the world while the head moves under them.
        gaze[span] = offset - head[span]
        if np.linalg.norm(offset - previous) > 9:
            large.append(begin)
        previous = offset
    return np.clip(gaze + rng.normal(0, 0.15, gaze.shape), [-25, -20], [25, 20]), large


def blink_pulses(times: np.ndarray, shifts: list[float], rng: np.random.Generator) -> np.ndarray:
    """Lid closure with a blink every 2 to 6 s and with a third of the large gaze shifts: (T,) in 0..1."""
    blink = np.zeros(len(times))
    starts = random_times(times, rng, (2.0, 6.0)) + [time for time in shifts if rng.random() < 0.35]
    for start in starts:
        # The peak falls on a frame, else 25 fps would show blinks that never close.
        peak = (np.floor((start + 0.08) * FPS) + 0.5) / FPS
        closing, opening, depth = rng.uniform(0.05, 0.10), rng.uniform(0.10, 0.20), rng.uniform(0.85, 1.0)
        held = rng.choice([0.0, 0.04])
        before = 1 + (times - peak) / closing
        after = 1 - (times - peak - held) / opening
        blink = np.maximum(blink, depth * np.clip(np.minimum(before, after), 0.0, 1.0))
    resting = 0.05 * np.abs(drift(times, rng, 2.0)) if rng.random() < 0.5 else 0.0
    return np.clip(np.maximum(blink, resting), 0.0, 1.0)


def hold_jumps(track: np.ndarray, rng: np.random.Generator, draw: Callable[[], float]) -> list[slice]:
    """Overwrite stretches of the track (T,) in place with a drawn value each: an abrupt step, then held.

    Returns:
        The frames of each stretch.
    """
    spans, frame = [], int(rng.uniform(0, 1.5) * FPS)
    while frame < len(track):
        length = int(rng.uniform(0.2, 2.5) * FPS)
        span = slice(frame, min(frame + length, len(track)))
        track[span] = draw()
        spans.append(span)
        # Often one held value jumps straight to the next, without the natural track in between.
        frame += length + (0 if rng.random() < 0.4 else int(rng.uniform(0.3, 2.5) * FPS))
    return spans
