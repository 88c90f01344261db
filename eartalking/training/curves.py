"""What runs logged, as one picture: `python -m eartalking.training.curves NAME=RUN ... --out FILE.png`."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def draw_curves(logs: Mapping[str, Path]) -> Image.Image:
    """A row for each log (`log.jsonl` of `training.loop`) that is there: its losses, and what was measured on held-out
    data, over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = {
        name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for name, path in logs.items()
        if path.exists()
    }
    height = max(len(rows), 1)
    figure, axes = pyplot.subplots(height, 2, figsize=(11, 3 * height), squeeze=False)
    for line, (name, logged) in zip(axes, rows.items(), strict=False):
        for axis, prefix, title in ((line[0], "", "losses"), (line[1], "eval_", "held out")):
            for key in dict.fromkeys(key for row in logged for key in row):
                if key in ("step", "seconds") or key.startswith("eval_") != bool(prefix):
                    continue
                steps, values = zip(*((row["step"], row[key]) for row in logged if key in row), strict=True)
                axis.plot(steps, values, marker=".", label=key.removeprefix(prefix))
            axis.set(title=f"{name}: {title}", xlabel="step")
            if axis.has_data():
                axis.legend(fontsize=6)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return Image.open(buffer).convert("RGB").quantize(64)  # lines need few colours, and the file is a fourth


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.curves", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="a run's folder, and what it is called")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    args = parser.parse_args(argv)
    logs = {}
    for named in args.runs:
        name, equals, folder = named.partition("=")
        if not equals or not (path := Path(folder) / "log.jsonl").is_file():
            parser.error(f"{named}: expected NAME=RUN, the folder of a run with its log.jsonl")
        logs[name] = path
    draw_curves(logs).save(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
