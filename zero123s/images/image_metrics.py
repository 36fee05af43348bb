"""Distances between two images or masks. Pure functions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

HALF_STEP = 0.5 / 255
"""Of an 8-bit image."""


def psnr(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."], max_db: float = 100.0) -> float:
    """Compute the peak signal-to-noise ratio of two images.

    Args:
        a: in [0, 1], of any shape.
        b: of the same shape.
        max_db: value for equal images.

    Returns:
        dB.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.image_metrics import psnr
        >>> round(psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1)), 2)
        20.0
    """
    mse = float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
    return max_db if mse <= 10 ** (-max_db / 10) else float(-10 * np.log10(mse))


def ssim(a: Float[np.ndarray, "H W C"], b: Float[np.ndarray, "H W C"]) -> float:
    """Compute the mean structural similarity of two images (Wang et al. 2004), with a Gaussian window of 11 pixels.

    Args:
        a: H W C in [0, 1].
        b: of the same shape.

    Returns:
        At most 1, for equal images.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.image_metrics import ssim
        >>> image = np.random.default_rng(0).random((16, 16, 3))
        >>> round(ssim(image, image), 6)
        1.0
    """
    from scipy.ndimage import gaussian_filter

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (1.5, 1.5, 0), truncate=3.5)

    assert min(a.shape[:2]) >= 11
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    value = numerator / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(value[5:-5, 5:-5].mean())


def roughness(rgb: Float[np.ndarray, "H W 3"], mask: Float[np.ndarray, "H W"]) -> float:
    """Compute the mean absolute Laplacian inside an object, without its outline.

    Args:
        rgb: H W 3 in [0, 1].
        mask: H W, the object.

    Returns:
        Mean over pixels and channels, of the four-neighbour Laplacian.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.image_metrics import roughness
        >>> roughness(np.full((9, 9, 3), 0.5), np.ones((9, 9)))
        0.0
    """
    rgb, inside = np.asarray(rgb, np.float64), np.asarray(mask) > 0.5
    laplacian = rgb[:-2, 1:-1] + rgb[2:, 1:-1] + rgb[1:-1, :-2] + rgb[1:-1, 2:] - 4 * rgb[1:-1, 1:-1]
    whole = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:] & inside[1:-1, 1:-1]
    return float(np.abs(laplacian[whole]).mean()) if whole.any() else 0.0


def relative_roughness(rendered: Sequence[float], reference: Sequence[float]) -> float:
    """Compare the roughness of views with that of the ground truth.

    Args:
        rendered: `roughness` of every view.
        reference: `roughness` of every true view.

    Returns:
        Ratio of the means: 1 = the same detail, larger = mottled, smaller = blurred.

    Example:
        >>> from zero123s.images.image_metrics import relative_roughness
        >>> round(relative_roughness([0.2, 0.4], [0.1, 0.2]), 1)
        2.0
    """
    return (float(np.mean(rendered)) + HALF_STEP) / (float(np.mean(reference)) + HALF_STEP)


def mask_iou(a: np.ndarray, b: np.ndarray, threshold: float = 0.5) -> float:
    """Compute the intersection over union of two masks or coverages.

    Args:
        a: of any shape.
        b: of the same shape.
        threshold: coverage from which a pixel belongs to the mask.

    Returns:
        In [0, 1]; 1 for two empty masks.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.image_metrics import mask_iou
        >>> mask_iou(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 1.0, 1.0, 1.0]))
        0.25
    """
    a, b = np.asarray(a) > threshold, np.asarray(b) > threshold
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
