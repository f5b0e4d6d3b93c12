"""How the gradients of the Gaussian are filled, from the operands with the image axes last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._backend import Call
from cuvarconv._blocks import blocks, matching
from cuvarconv._blur import Blur
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._separable import separable_sigma_gradient, spread_separable
from cuvarconv._sigma import align_sigma
from cuvarconv._window import Window

_PART = 1 << 20  # widths whose gradients are added up together


@dataclass(frozen=True)
class Backward:
    """The gradient in the result and the image, as the caller gave them, and the blur."""

    call: Call
    grad: Any
    input: Any
    blur: Blur

    @property
    def _operands(self) -> tuple[Any, Any]:
        """The gradient and the image with the image axes last; of a real image the gradient's real part."""
        seed = self.grad if self.input.dtype.kind == "c" else self.grad.real
        return seed.transpose(self.blur.order), self.input.transpose(self.blur.order)

    def fill_input(self, result: Any, dtype: np.dtype) -> None:
        """Spread the gradient."""
        blur, target = self.blur, result.transpose(self.blur.order)
        operands = self._operands[0], blur.sigmas
        if blur.separable:
            self.call.composed(spread_separable, *operands, target, blur.window, dtype=dtype)
        else:
            self.call.home.backend.gaussian_input_gradient(
                *operands, blur.angle, target, blur.window, truncate=blur.truncate, dtype=dtype
            )

    def fill_sigma(self, result: Any, dtype: np.dtype) -> None:
        """Fill the gradients of one σ per axis, or that of one for both."""
        blur = self.blur
        if blur.separable and self.call.home.library != "dask":
            slopes = separable_sigma_gradient(
                self.call, *self._operands, blur.sigmas, blur.window, dtype=dtype
            )
            _assign(result, slopes)
        elif isinstance(result, tuple):
            self._fill_slopes(*(self._aligned("sigma", each) for each in result), None, dtype=dtype)
        else:
            self.call.composed(
                _fill_common,
                *self._operands,
                blur.sigmas[0],
                blur.angle,
                self._aligned("sigma", result),
                blur.window,
                truncate=blur.truncate,
                dtype=dtype,
            )

    def fill_angle(self, result: Any, dtype: np.dtype) -> None:
        """Fill the gradient of the angle."""
        self._fill_slopes(None, None, self._aligned("angle", result), dtype=dtype)

    def _fill_slopes(self, *targets: Any, dtype: np.dtype) -> None:
        """Fill the gradients of σ along rows, σ along columns and the angle, None where not asked."""
        blur = self.blur
        self.call.home.backend.gaussian_sigma_gradient(
            *self._operands,
            blur.sigmas,
            blur.angle,
            targets,
            blur.window,
            truncate=blur.truncate,
            dtype=dtype,
        )

    def _aligned(self, name: str, result: Any) -> Any:
        return align_sigma(name, result, self.grad.shape, self.blur.order)


def _assign(result: Any, slopes: tuple[float, float]) -> None:
    """Write the gradients of one σ per axis, or of one for both."""
    if isinstance(result, tuple):
        result[0][...], result[1][...] = slopes
    else:
        result[...] = sum(slopes)


def _fill_common(
    call: Call,
    grad: Any,
    input: Any,
    sigma: Any,
    angle: Any,
    result: Any,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Add the gradients along rows and along columns of a σ that both share, part after part."""
    real = accumulator_dtype(np.empty((), dtype).real.dtype)
    for place in blocks(result.shape, _PART):
        where = matching(sigma, place)
        *batch, down, across = where
        turn = None if angle is None else angle[matching(angle, where)]
        rows, columns = (call.fresh(result[where].shape, real) for _ in range(2))
        width = sigma[where]
        call.home.backend.gaussian_sigma_gradient(
            grad[where],
            input[tuple(batch)],
            (width, width),
            turn,
            (rows, columns, None),
            window.part(down, across),
            truncate=truncate,
            dtype=dtype,
        )
        with np.errstate(all="ignore"):
            result[where] = rows + columns
