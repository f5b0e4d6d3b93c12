"""Bugs in full kernels on the NumPy backend."""

from planted.suites import LOCAL

PLANTED = [
    (
        "cuvarconv/_cpu/_local_pairs.py",
        LOCAL,
        [
            (
                "products of taps that overwrite each other",
                "np.add(row, product, out=row)",
                "np.copyto(row, product)",
            ),
            (
                "rows of taps that overwrite each other",
                "np.add(total, row, out=total)",
                "np.copyto(total, row)",
            ),
            ("sums from what was in memory", "total.fill(0)\n            planes, part", "planes, part"),
            ("the gradient of pixels unconjugated", "np.conjugate(total, out=total)", "pass"),
            (
                "gradients unconjugated",
                "self._pairs.repeated(grad.conj(), _INPUTS",
                "self._pairs.repeated(grad, _INPUTS",
            ),
            ("the gradient of kernels unconjugated", "tile.conj() if conjugate else tile", "tile"),
            ("the last sample for all", "product.sum(self._shared, keepdims=True)", "product[-1:]"),
            (
                "the gradient of kernels where several samples share them written as one's",
                "direct = self._one_sample and",
                "direct =",
            ),
            (
                "outputs taken from the first row that the pixels reach",
                "some = slice(i.start - self._first, i.stop - self._first)",
                "some = slice(0, i.stop - i.start)",
            ),
            (
                "outputs taken from the first column",
                "line[..., j.start - hull.start : j.stop - hull.start]",
                "line[..., : j.stop - j.start]",
            ),
            ("one channel for all", "whole[..., c, o, :, :]", "whole[..., 0, 0, :, :]"),
            ("the last channel left out", "for each in terms[1:]:", "for each in terms[1:-1]:"),
            (
                "kernels of the first sample for all",
                "(m, n, *own, slice(None), slice(None)",
                "(m, n, *([slice(0, 1)] * len(own)), slice(None), slice(None)",
            ),
            (
                "small products preferred to pairs",
                "slow = not (self._one_sample or has_small_products())",
                "slow = False",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_channels_last.py",
        LOCAL,
        [
            (
                "matrices of numbers in the order in which they lie",
                "return np.ascontiguousarray(converted)",
                "return converted.ravel('K').reshape(tap.shape)",
            ),
            (
                "samples last read as first",
                "moved.reshape(*pixels, images.shape[-3], -1).swapaxes(-1, -2)",
                "moved.reshape(*pixels, -1, images.shape[-3])",
            ),
        ],
    ),
]
