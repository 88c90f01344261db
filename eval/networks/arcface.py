"""ArcFace, the field's descriptor of faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_DETECTOR_SIDE = 640


class ArcFace:
    """buffalo_l of insightface: SCRFD finds five points, w600k_r50 describes the face aligned by them.

    Raises:
        ImportError: insightface is not installed.
    """

    def __init__(self, detector: Path, recogniser: Path) -> None:
        # Here: onnxruntime, onnx and OpenCV take a second to import, and only this network needs them.
        from insightface.model_zoo import get_model
        from insightface.utils.face_align import norm_crop

        self._detector, self._recogniser, self._align = get_model(str(detector)), get_model(str(recogniser)), norm_crop
        self._detector.prepare(ctx_id=-1, input_size=(_DETECTOR_SIDE, _DETECTOR_SIDE))

    def descriptor(self, image: np.ndarray) -> np.ndarray | None:
        """(512,) of the surest face in (H, W, 3) uint8 RGB, None without one."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        boxes, points = self._detector.detect(bgr)[:2]
        if not len(boxes):
            return None
        return self._recogniser.get_feat(self._align(bgr, points[int(boxes[:, 4].argmax())])).reshape(-1)
