"""What the renderer's own correspondences give: each still's portrait, warped as exactly as it can be.

Where the still shows what its portrait does not, no warp knows what to show, and the decoder's picture stands there.
So what is missing to these pictures is how inexactly a portrait is read and moved, and what these miss is painting.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.gates.material import SPLIT, Clip
from benchmarks.gates.table import Unavailable
from eartalking.modules.pixels import to_float, to_uint8
from eartalking.modules.warp import identity_grid, warp_image
from eartalking.synth.clips import ClipSpec, render_clip
from eartalking.synth.head import load_bundle
from eartalking.synth.render import Renderer

# A portrait of somebody who sits for it: at most so far turned, degrees, and lips and lids so far from rest.
TURNED, OPEN, SHUT = np.array([15.0, 8.0, 7.0]), 0.05, 0.12


class TrueWarps:
    """Renders stills again, with a correspondence for every pixel; those of the clips are four times coarser.

    Raises Unavailable: nothing can be rendered here.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        try:
            self._bundle = load_bundle()
            self._renderer = Renderer(size=size, map_size=size, bundle=self._bundle)
        except Exception as error:  # a missing package or a machine without EGL: many kinds, one meaning
            raise Unavailable(f"stills cannot be rendered again here ({error})") from error

    def release(self) -> None:
        self._renderer.release()

    @torch.inference_mode()
    def frames(self, seed: int, clip: Clip, decoded: np.ndarray) -> np.ndarray | None:
        """Of the clip of this seed and its first T stills as decoded (T, S, S, 3): the same, warped exactly; None if
        the clip is of another origin."""
        spec = ClipSpec("stills", SPLIT, self._size, len(clip["frames"]))
        again = render_clip(spec, seed, self._renderer, self._bundle)[0]
        if not np.array_equal(again["frames"], clip["frames"]):
            return None
        maps = torch.from_numpy(again["correspondence"][: len(decoded)]).float()
        warps = (maps - identity_grid(self._size)).permute(0, 3, 1, 2)
        portraits = to_float(torch.from_numpy(clip["reference"]))[None].expand(len(warps), -1, -1, -1)
        seen = torch.from_numpy(again["visibility"][: len(decoded)] > 0).float()[:, None]
        exact = torch.lerp(to_float(torch.from_numpy(decoded)), warp_image(portraits, warps, "bicubic"), seen)
        return to_uint8(exact).numpy()


def sits_for_it(clip: Clip) -> bool:
    """Whether the portrait of a clip is one that people sit for, or caught in the middle of something."""
    labels = {name: clip[f"reference_labels.{name}"][0] for name in ("head_pose", "mouth_open", "blink", "emotion")}
    straight = (np.abs(labels["head_pose"]) <= TURNED).all()
    return bool(straight and labels["mouth_open"] <= OPEN and labels["blink"] <= SHUT and labels["emotion"] == 0)
