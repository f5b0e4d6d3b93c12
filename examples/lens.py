"""Point spread functions of a simple lens, for deblur.py and the pictures of the documentation."""

import numpy as np


def lens_psfs(
    shape: tuple[int, int],
    coma: float,
    astigmatism: float = 0.0,
    defocus: float = 0.0,
    *,
    rays: int = 20,
) -> np.ndarray:
    """Trace rays through a lens whose aberrations grow toward the corners of the picture.

    The ray through point (a, b) of the pupil, a disc of radius 1, misses the image of its source by

        (coma·f·(3a² + b²)/3 + (astigmatism·f² + defocus)·a,    away from the middle of the picture
         coma·f·2ab/3        + (astigmatism·f²/3 + defocus)·b)  and across

    pixels, f being the distance of the source from the middle, 1 at the corners.

    Returns
    -------
    array
        float32, (k, k, H, W): where the light of each source goes, with sum 1, as `spread` takes it.
    """
    radius = int(coma + astigmatism + defocus) + 1
    rows, columns = np.indices(shape)
    down, right = rows - (shape[0] - 1) / 2 + 1e-9, columns - (shape[1] - 1) / 2  # nowhere both 0
    distance = np.hypot(down, right)
    down, right, field = down / distance, right / distance, distance / distance.max()
    psfs = np.zeros((2 * radius + 1, 2 * radius + 1, *shape), np.float32)
    across = (np.arange(rays) + 0.5) / rays * 2 - 1
    pupil = [(a, b) for a in across for b in across if a * a + b * b < 1]
    for a, b in pupil:
        away = coma * field * (3 * a * a + b * b) / 3 + (astigmatism * field**2 + defocus) * a
        aside = coma * field * 2 * a * b / 3 + (astigmatism * field**2 / 3 + defocus) * b
        _hit(psfs, radius + away * down - aside * right, radius + away * right + aside * down)
    return psfs / np.float32(len(pupil))


def _hit(psfs: np.ndarray, row: np.ndarray, column: np.ndarray) -> None:
    """Add a ray to every PSF, shared by the four taps around the point (row, column) that it hits."""
    i, j = np.indices(row.shape)
    m, n = row.astype(np.intp), column.astype(np.intp)
    low, left = row - m, column - n
    psfs[m, n, i, j] += (1 - low) * (1 - left)
    psfs[m, n + 1, i, j] += (1 - low) * left
    psfs[m + 1, n, i, j] += low * (1 - left)
    psfs[m + 1, n + 1, i, j] += low * left
