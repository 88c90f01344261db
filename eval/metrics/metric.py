"""The contract of a metric: features of one clip -> statistics over clips -> a value with its interval.

`update(clip)` takes the features of one clip (cached by content, see `eval.cache`), `compute()` makes the value,
`reset()` forgets the clips. A clip that cannot be measured lowers `coverage` and is named in `note`; a metric that
cannot be measured at all has no value and says why. A value is never 0 because a measurement is missing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from eval.clips import EvalClip
from eval.protocol import Protocol

Item = Mapping[str, np.ndarray]
Network = TypeVar("Network")
TIERS = ("canonical", "embedded", "none")  # the field's own network, one that ships or installs, or no network at all
SHARE = "share"  # item key: what share of the clip's frames the numbers come from
FRAMES = "frames"  # item key: how many frames the numbers come from


class Unmeasured(ValueError):
    """A clip that a metric cannot be taken of; the message says why and what to do."""


class NotAsked(Unmeasured):
    """A clip in which there is nothing to measure (no control asked for, no silence): it costs no coverage."""


@dataclass(frozen=True)
class MetricResult:
    """One metric over all clips.

    value is None where nothing could be measured; `note` then says why. n_videos and n_frames are those that the value
    comes from, coverage (0..1) their share of what the protocol asked for. ci_low and ci_high are a 95 % interval by
    bootstrap over videos, None with fewer than two. per_clip: {"clip", "value", "coverage", "reason"} per clip;
    coverage is None where there was nothing to measure.
    """

    name: str
    network: str
    tier: str
    higher_is_better: bool | None
    value: float | None
    per_clip: list[dict[str, Any]]
    n_videos: int
    n_frames: int
    coverage: float
    ci_low: float | None = None
    ci_high: float | None = None
    note: str = ""

    @property
    def direction(self) -> str:
        """`higher` or `lower` is better; `zero` where a signed value is best at 0."""
        return {True: "higher", False: "lower", None: "zero"}[self.higher_is_better]

    def to_row(self) -> dict[str, Any]:
        """The result as one flat row; empty cells are None."""
        return {
            "metric": self.name, "value": self.value, "direction": self.direction, "network": self.network,
            "tier": self.tier, "n_videos": self.n_videos, "n_frames": self.n_frames,
            "coverage": round(self.coverage, 4), "ci_low": self.ci_low, "ci_high": self.ci_high, "note": self.note,
        }  # fmt: skip


@dataclass
class Metric(ABC):
    """A metric and the clips taken in so far. `network` names what the features come from; `higher_is_better` is None
    where a signed value is best at 0. `missing` is the reason why the network is not here, "" where it is: with a
    reason, every clip stays unmeasured and `measure` is never called."""

    name: str
    network: str
    tier: str
    higher_is_better: bool | None
    protocol: Protocol = field(default_factory=Protocol)
    missing: str = ""

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise ValueError(f"tier must be one of {', '.join(TIERS)}, not {self.tier!r}")
        self.reset()

    def reset(self) -> None:
        """Forget all clips."""
        self._items: dict[str, Item] = {}
        self._reasons: dict[str, str] = {}
        self._not_asked: dict[str, str] = {}

    @abstractmethod
    def measure(self, clip: EvalClip) -> Item:
        """The features of one clip, by name; `SHARE` and `FRAMES` tell what they come from (default: all of it).

        Raises:
            ValueError (InputError, Unmeasured): the clip cannot be measured.
        """

    @abstractmethod
    def value_of(self, items: list[Item]) -> float:
        """The metric over the clips of `items`, at least one; ValueError where they do not suffice."""

    def clip_value(self, item: Item) -> float | None:
        """The metric of one clip alone, None where that has no meaning; ValueError as `value_of`."""
        return self.value_of([item])

    def check(self, item: Item) -> None:
        """Refuse features that would spoil the value of all clips. Raises ValueError."""
        for name, value in item.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{name} contains numbers that are not finite")

    def clip_details(self, item: Item) -> dict[str, Any]:
        """More of one clip for the per-clip file: curves, time bins; JSON values."""
        return {}

    def update(self, clip: EvalClip) -> None:
        """Take a clip in; one that cannot be measured is remembered with its reason."""
        if self.missing:
            self.fail(clip.name, self.missing)
            return
        try:
            item = dict(self.measure(clip))
            self.check(item)
        except NotAsked as error:
            self._forget(clip.name)
            self._not_asked[clip.name] = str(error)
            return
        except ValueError as error:
            self.fail(clip.name, str(error))
            return
        self._forget(clip.name)
        # A video that ends early is measured on the frames that it has, and counts for their share.
        item[SHARE] = np.asarray(item.get(SHARE, 1.0)) * min(1.0, clip.length_share)
        item.setdefault(FRAMES, np.asarray(clip.num_frames))
        self._items[clip.name] = item

    def fail(self, name: str, reason: str) -> None:
        """Count a clip that cannot be measured, for instance one whose file cannot be opened."""
        self._forget(name)
        self._reasons[name] = reason

    def _forget(self, name: str) -> None:
        for clips in (self._items, self._reasons, self._not_asked):
            clips.pop(name, None)

    def compute(self) -> MetricResult:
        """The value over all clips so far."""
        items = list(self._items.values())
        expected = len(self._items) + len(self._reasons)
        value, low, high, why = None, None, None, self.missing or "no clip was given"
        if items:
            try:
                value, why = _finite(self.value_of(items)), ""
                low, high = self.interval(items, value)
            except ValueError as error:
                why = str(error)
        used = items if value is not None else []
        coverage = sum(float(item[SHARE]) for item in used) / expected if expected else 0.0
        return MetricResult(
            self.name, self.network, self.tier, self.higher_is_better, value, self._clip_rows(), len(used),
            int(sum(int(item[FRAMES]) for item in used)), coverage, low, high, self._note(why, coverage, bool(items)),
        )  # fmt: skip

    def interval(self, items: list[Item], value: float) -> tuple[float | None, float | None]:
        """95 % by percentiles of the bootstrap over clips: the metric on clips drawn with replacement."""
        drawn = self.resampled(items, self.protocol.resamples)
        return (float(np.percentile(drawn, 2.5)), float(np.percentile(drawn, 97.5))) if len(drawn) else (None, None)

    def resampled(self, items: list[Item], count: int) -> np.ndarray:
        """The metric on `count` draws of the clips; empty with fewer than two clips."""
        if len(items) < 2:
            return np.zeros(0)
        rng = np.random.default_rng(self.protocol.seed)
        draws = rng.integers(len(items), size=(count, len(items)))
        return np.array([self.value_of([items[i] for i in draw]) for draw in draws])

    def _clip_rows(self) -> list[dict[str, Any]]:
        rows = []
        for name, item in self._items.items():
            try:
                value, reason = self.clip_value(item), ""
                value = None if value is None else _finite(value)
            except ValueError as error:
                value, reason = None, str(error)
            found = {"clip": name, "value": value, "coverage": float(item[SHARE]), "reason": reason}
            rows.append(found | self.clip_details(item))
        for coverage, reasons in ((0.0, self._reasons), (None, self._not_asked)):
            empty = {"value": None, "coverage": coverage}
            rows += [{"clip": name, **empty, "reason": reason} for name, reason in reasons.items()]
        return sorted(rows, key=lambda row: row["clip"])

    def _note(self, why: str, coverage: float, any_items: bool) -> str:
        reasons = list(self._reasons.items())
        same = {reason for _, reason in reasons}
        if not any_items and not reasons and self._not_asked:
            return next(iter(self._not_asked.values()))
        if why and (any_items or not reasons or self.missing):
            return why
        if not any_items and len(same) == 1:
            return same.pop()
        notes = [f"coverage {coverage:.1%}"] if coverage < 0.9995 else []
        if reasons:
            example = reasons[0][1] if len(same) == 1 else f"{reasons[0][0]}: {reasons[0][1]}"
            notes.append(f"{len(reasons)} clip{'s' if len(reasons) > 1 else ''} not measured ({example})")
        return "; ".join(notes)


@dataclass
class MeanMetric(Metric):
    """A metric whose value is the mean over videos of each video's own value; median=True takes the median."""

    median: bool = False

    @abstractmethod
    def clip_value(self, item: Item) -> float:
        """The metric of one clip."""

    def check(self, item: Item) -> None:
        super().check(item)
        _finite(self.clip_value(item))

    def value_of(self, items: list[Item]) -> float:
        values = [self.clip_value(item) for item in items]
        return float(np.median(values) if self.median else np.mean(values))

    def resampled(self, items: list[Item], count: int) -> np.ndarray:
        if len(items) < 2:
            return np.zeros(0)
        values = np.array([self.clip_value(item) for item in items])
        draws = np.random.default_rng(self.protocol.seed).integers(len(items), size=(count, len(items)))
        return np.median(values[draws], axis=1) if self.median else values[draws].mean(1)


def present(network: Network | None) -> Network:
    """The network of a metric, in `measure`. Raises ValueError: there is none, and the metric's `missing` is empty."""
    if network is None:
        raise ValueError("this metric was built without its network")
    return network


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the value is not a finite number ({value})")
    return float(value)
