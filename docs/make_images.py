"""Make the README's picture: ``python docs/make_images.py`` writes docs/images/variant_blur.jpg."""

import sys
from pathlib import Path

from cuvarconv._demo import blurred, panel_row
from cuvarconv._demo.blurs import DepthBlur, IntensityBlur
from cuvarconv._demo.panel import draw
from cuvarconv._demo.pictures import load

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> int:
    """Draw both blurs of the motorcycle, without zooms."""
    picture = load(None, None, size=1024)
    assert picture.disparity is not None
    blurs = (
        IntensityBlur(picture.colours, sigma_max=6.0),
        DepthBlur(picture.colours, picture.disparity, focus=None, disc_max=9.0),
    )
    rows = [panel_row(picture, blur, blurred(blur)[0]) for blur in blurs]
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / "variant_blur.jpg"
    draw(rows, path, width=4.0, zoom=False, pil_kwargs={"quality": 85, "optimize": True})
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
