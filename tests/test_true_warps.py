"""The renderer's own correspondences show a still better than its portrait does, and know other clips."""

import numpy as np

from benchmarks.gates.true_warps import TrueWarps, sits_for_it
from eartalking.synth.clips import ClipSpec, render_clip
from eartalking.synth.head import load_bundle
from eartalking.synth.render import Renderer

SIZE = 64


def test_exact_warps() -> None:
    bundle = load_bundle()
    renderer = Renderer(size=SIZE, map_size=SIZE // 4, bundle=bundle)
    clip, _ = render_clip(ClipSpec("stills", "test", SIZE, 2), 0, renderer, bundle)
    renderer.release()
    still = np.repeat(clip["reference"][None], 2, axis=0)
    warps = TrueWarps(SIZE)
    exact = warps.frames(0, clip, still)
    assert exact is not None
    moved = (exact != still).any(-1)
    off, own = (np.square(frames.astype(float) - clip["frames"])[moved].mean() for frames in (exact, still))
    assert off < 0.4 * own
    assert warps.frames(1, clip, still) is None, "another clip's"
    warps.release()
    assert isinstance(sits_for_it(clip), bool)
