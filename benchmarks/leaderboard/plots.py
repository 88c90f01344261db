"""Plots of the leaderboard: quality against latency, drift over time, SyncNet's curve over offsets.

A method has one colour in all plots. References (the truth, a still portrait ...) are grey and dashed: ends of the
scale, no contestants.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.leaderboard.headline import method_name, title
from benchmarks.leaderboard.rows import RANKED_BY, in_order
from benchmarks.leaderboard.table import Row

QUALITIES = (RANKED_BY, "fid_lite0")
DRIFTS = ("drift_identity", "drift_sharpness", "drift_colour")
CURVE_METRICS = ("sync_d_synthtalk", "sync_d")
BETTER = {"higher": "higher is better", "lower": "lower is better", "zero": "0 is best"}
GREY = "0.45"
DASHES = ((0, (5, 2)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (1, 3)))  # one for each reference
MARKERS = {"ours": "*", "ablation": "^", "retrained": "v", "baseline": "s", "external": "D"}


def draw(
    rows: list[Row], suite: str, clips: dict[str, list[dict[str, Any]]], folder: Path, bin_seconds: float
) -> list[Path]:
    """PNGs into `folder`; `clips`: per method the per-clip rows of `eval.run.score`. A plot without data is left out.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    makers = {"quality_latency": _quality_latency, "sync_offsets": _sync_offsets, "drift": _drift}
    own = in_order(rows, suite)
    styles = _styles(pyplot, own, list(clips))
    written = []
    for name, make in makers.items():
        figure = make(pyplot, own, clips, bin_seconds, styles)
        if figure is not None:
            written.append(folder / f"{suite}_{name}.png")
            figure.savefig(written[-1], dpi=110, bbox_inches="tight")
            pyplot.close(figure)
            Image.open(written[-1]).convert("RGB").quantize(64).save(written[-1])  # lines need few colours
    return written


def _styles(pyplot: Any, rows: list[Row], others: list[str]) -> dict[str, dict[str, Any]]:
    """Colour and line of every method."""
    kinds = {row["method"]: row.get("kind") for row in rows}
    names = list(dict.fromkeys([*kinds, *others]))
    references = [name for name in names if kinds.get(name) == "reference"]
    contestants = [name for name in names if name not in references]
    palette = pyplot.get_cmap("tab10" if len(contestants) < 10 else "tab20").colors
    colours = [colour for colour in palette if max(colour) - min(colour) > 0.1]  # grey is for references
    styles = {name: {"color": colours[i % len(colours)], "linestyle": "-"} for i, name in enumerate(contestants)}
    styles |= {name: {"color": GREY, "linestyle": DASHES[i % len(DASHES)]} for i, name in enumerate(references)}
    if "ours" in styles:
        styles["ours"]["linewidth"] = 2.6
    return styles


def offset_curves(clips: dict[str, list[dict[str, Any]]]) -> dict[str, np.ndarray]:
    """Mean distance per offset of each method, from the first network that has curves."""
    for metric in CURVE_METRICS:
        found = {
            method: np.mean([row["curve"] for row in rows if row["metric"] == metric and "curve" in row], axis=0)
            for method, rows in clips.items()
            if any(row["metric"] == metric and "curve" in row for row in rows)
        }
        if found:
            return found
    return {}


def _quality_latency(pyplot: Any, rows: list[Row], clips: Any, bin_seconds: float, styles: dict[str, Any]) -> Any:
    points = [row for row in rows if row.get("ttff_ms") is not None]
    shown = [quality for quality in QUALITIES if any(row.get(quality) is not None for row in points)]
    if not shown:
        return None
    figure, axes = pyplot.subplots(1, len(shown), figsize=(7 * len(shown), 5), squeeze=False)
    for axis, quality in zip(axes[0], shown, strict=True):
        measured = [row for row in rows if row.get(quality) is not None]
        for row in measured:
            style = styles[row["method"]]
            if row.get("ttff_ms") is None:  # the truth has no latency: a level to compare with
                axis.axhline(row[quality], linewidth=1.2, label=row["method"], **style)
            else:
                low, high = row.get(f"{quality}_ci_low"), row.get(f"{quality}_ci_high")
                spread = (
                    None
                    if low is None or high is None
                    else [[max(row[quality] - low, 0)], [max(high - row[quality], 0)]]
                )
                look = {"marker": MARKERS.get(str(row.get("kind")), "o"), "markersize": 7, "capsize": 2, "linewidth": 1}
                axis.errorbar(
                    row["ttff_ms"],
                    row[quality],
                    spread,
                    label=row["method"],
                    linestyle="",
                    color=style["color"],
                    **look,
                )
        direction = next((row[f"{quality}_direction"] for row in measured if row.get(f"{quality}_direction")), "")
        axis.set(
            xscale="log", xlabel="first frame, ms (live sound, everything included)", ylabel=_label(quality, direction)
        )
        axis.grid(alpha=0.3, which="both")
    handles = {name: handle for axis in axes[0] for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    ordered = [row["method"] for row in rows if row["method"] in handles]  # best in time with the voice first
    axes[0][-1].legend(
        [handles[name] for name in ordered],
        list(map(method_name, ordered)),
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
    )
    figure.suptitle(
        "Quality against latency; bars: 95 % over videos; lines: references that have no latency", fontsize=10
    )
    return figure


def _label(metric: str, direction: str) -> str:
    return f"{title(metric)} ({BETTER[direction]})" if direction in BETTER else title(metric)


def _sync_offsets(
    pyplot: Any, rows: list[Row], clips: dict[str, list[dict[str, Any]]], bin_seconds: float, styles: dict[str, Any]
) -> Any:
    curves = offset_curves(clips)
    if not curves:
        return None
    figure, axis = pyplot.subplots(figsize=(8.5, 5))
    for method, curve in sorted(curves.items(), key=lambda item: item[1].min()):
        shifts = np.arange(len(curve)) - len(curve) // 2
        axis.plot(shifts, curve, label=method_name(method), **{"linewidth": 1.3, **styles[method]})
    axis.axvline(0, color="0.8", linewidth=1, zorder=0)
    axis.set(
        xlabel="sound moved by so many frames (positive: the sound comes late)",
        ylabel="mean distance of mouth and sound",
        title="In time with the voice: a deep dip at 0",
    )
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), title="deepest first")
    axis.grid(alpha=0.3)
    return figure


def _drift(
    pyplot: Any, rows: list[Row], clips: dict[str, list[dict[str, Any]]], bin_seconds: float, styles: dict[str, Any]
) -> Any:
    lines = {
        (method, row["metric"]): row["bins"]
        for method, clip_rows in clips.items()
        for row in sorted(clip_rows, key=lambda row: len(row.get("bins", ())))  # the longest clip is drawn
        if row["metric"] in DRIFTS and row.get("bins")
    }
    shown = [metric for metric in DRIFTS if any(key[1] == metric for key in lines)]
    if not shown:
        return None
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5.5 * len(shown), 4.2), squeeze=False)
    for axis, metric in zip(axes[0], shown, strict=True):
        for (method, name), bins in lines.items():
            if name == metric:
                values = [np.nan if value is None else value for value in bins]  # a bin without a face
                look = {"linewidth": 1.3, "marker": ".", **styles[method]}
                axis.plot((np.arange(len(bins)) + 0.5) * bin_seconds, values, label=method_name(method), **look)
        axis.set(xlabel="seconds", ylabel=f"{title(metric)}, against the first {bin_seconds:g} s")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
