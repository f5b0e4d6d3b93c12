"""Bugs in the bilateral filter of the NumPy backend."""

FILTER = (
    "tests/test_bilateral_host.py",
    "tests/test_bilateral.py",
    "tests/test_bilateral_numbers.py",
    "tests/test_bilateral_gradients.py",
    "-k",
    "not cuda",
)

PLANTED = [
    (
        "cuvarconv/_cpu/_walk.py",
        FILTER,
        [
            (
                "second pixels of the first strip for all",
                "self._seconds[:, start : start + count] = here[:, :count]",
                "self._seconds[:, :count] = here[:, :count]",
            ),
            (
                "second pixels at the edge of a strip without all their pairs",
                "        length = count + taps - 1\n        shape",
                "        length = count\n        shape",
            ),
            (
                "first pixels summed for second ones",
                "stack.by_second[self._second_planes]",
                "stack.by_second[self._planes]",
            ),
            (
                "what the first strip sees for all",
                "part = self._values[:, start : start + self._here.shape[-1]]",
                "part = self._values[:, : self._here.shape[-1]]",
            ),
            ("weights of another strip", "self._steps[strip % self._walk.rooms]", "self._steps[0]"),
            ("sums of the strip before", "        if row.number == 0:\n", "        if False:\n"),
            ("sums of pixels that a strip has left", "        here[:, -count:] = 0\n", ""),
            (
                "what the strip before sends ahead",
                "        here[:, :-count] = here[:, count:]\n",
                "        here[:, :-count] = 0\n",
            ),
            (
                "shares that are not there yet",
                "self.lag = -(-(tile.first + taps) // count)",
                "self.lag = 0",
            ),
            (
                "squares of the first feature alone",
                "np.full(count, factor), spare, squares",
                "np.eye(count, dtype=self.dtype)[0] * factor, spare, squares",
            ),
            (
                "infinite squares of weights that are 0",
                "if self._squares and not likeness.bounded:",
                "if False:",
            ),
            (
                "pairs within a row twice",
                "range(-radius if down else 1, radius + 1)",
                "range(-radius, radius + 1)",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_weights.py",
        FILTER,
        [
            (
                "the least weight instead of 0",
                "    yield partial(np.subtract, exponents, weight, exponents)\n",
                "",
            ),
            ("weights that may vanish far too early", "{4: -100, 8: -900}", "{4: -10, 8: -10}"),
        ],
    ),
    (
        "cuvarconv/_cpu/_pairs.py",
        FILTER,
        [
            (
                "small weights of another guide do not count",
                "        vanish = alone and may_vanish(",
                "        vanish = may_vanish(",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_paired_adjoint.py",
        FILTER,
        [
            (
                "a of the second pixel left out",
                "        yield partial(np.add, slope, apart.seconds[number][0], slope)\n",
                "",
            ),
            (
                "channels after the first left out",
                "        if len(products) > 1:\n",
                "        if len(products) > 99:\n",
            ),
            (
                "what second pixels send left out",
                "partial(np.multiply, shares.firsts[number], weights",
                "partial(np.multiply, 0 * shares.firsts[number], weights",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_likeness.py",
        FILTER,
        [
            (
                "taps that do not exist in the distance along rows",
                "max(abs(down), abs(place)) for place in across",
                "abs(place) for place in across",
            ),
            (
                "features after the first left out",
                "            np.add(squares, np.square(other, weights), squares)\n",
                "            pass\n",
            ),
            (
                "distance of the first tap for all",
                "down**2 + place**2 for place in across",
                "down**2 + across[0] ** 2 for place in across",
            ),
            ("missing taps keep their weights", "        taps.exists(weights)\n", ""),
            ("small weights of another guide do not count", "vanish = self.alone and may", "vanish = may"),
        ],
    ),
    (
        "cuvarconv/_cpu/_moments.py",
        FILTER,
        [
            (
                "of several taps the first alone",
                "        if len(terms) > 1:\n",
                "        if len(terms) > 99:\n",
            ),
            (
                "rises of taps that do not exist count",
                "self._products.add(taps.exists(taps.product(taps.rises, weights[..., None, :, :])))",
                "self._products.add(taps.product(taps.rises, weights[..., None, :, :]))",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_bilateral_adjoint.py",
        FILTER,
        [
            (
                "sums under the first tap for all",
                "radius + across : radius + across + width]",
                "radius + taps.across[0] : radius + taps.across[0] + width]",
            ),
            (
                "the whole hull's sums from its first entry on",
                "slice(run.first - run.hull.start, run.first - run.hull.start + run.length) for run in",
                "slice(0, run.length) for run in",
            ),
            ("pixels that stay as they are send nothing", "outputs.grad, 0)\n", "0, 0)\n"),
            ("centres are not drawn", "    guide.total[centres] += pulled.total\n", ""),
        ],
    ),
]
