"""Blurs whose widths may differ at every pixel, with the conventions of `torch.nn.functional`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cuvarconv._arguments import number
from cuvarconv.torch import _blur_operators
from cuvarconv.torch._checks import (
    IntPair,
    boundary,
    check_guide,
    check_parameter,
    check_real,
    int_pair,
    prepare,
)

Width: TypeAlias = "float | Tensor"


def gaussian_blur2d(
    input: Tensor,
    sigma: Width | Sequence[Width],
    angle: Width | None = None,
    radius: IntPair | None = None,
    truncate: float = 4.0,
    padding_mode: str = "reflect",
) -> Tensor:
    """Blur by a Gaussian whose widths may differ at every pixel.

    .. math::

        y[b,c,i,j] = Σ_{Δr,Δc} k · x[b,c, i + Δr, j + Δc] / Σ_{Δr,Δc} k,
        k = exp(−½ (u² / σ_r² + v² / σ_c²)),
        u = cosθ·Δr + sinθ·Δc,  v = −sinθ·Δr + cosθ·Δc

    with σ_r, σ_c and θ those of pixel (i, j).  Height and width stay as they are.

    Parameters
    ----------
    input : Tensor
        Images, shape (N, C, H, W) or (C, H, W).
    sigma : float or Tensor, or a pair of them
        Standard deviation in pixels, ≥ 0: a number, a tensor of one, a map that broadcasts to the input,
        (H, W) or (N, 1, H, W) say, or a pair (rows, columns) of these; a tensor (2,) is a pair as well.
    angle : float or Tensor, optional
        θ in radians, a number or a map: turns the axis of σ_r from that of the rows towards that of
        the columns.
    radius : int or pair of int, optional
        Radius of all kernels in pixels, in place of `truncate`.
    truncate : float, optional
        Radius of each kernel in standard deviations, rounded.
    padding_mode : {"reflect", "zeros", "replicate", "circular"}, optional
        What lies outside the image, as in `torch.nn.Conv2d`; no padded copy is made.  The default is that
        of torchvision's and kornia's ``gaussian_blur``.  Zeros count as pixels.

    Returns
    -------
    Tensor
        Of the input's shape and dtype.

    Raises
    ------
    TypeError
        For dtypes and devices that differ or are not supported.
    ValueError
        For values and shapes that do not fit.

    See Also
    --------
    cuvarconv.gaussian_filter : The array function.

    Notes
    -----
    The input, σ and θ get gradients, radii held fixed; these have none themselves: second derivatives
    raise a RuntimeError.  The tensors σ and θ may have another floating dtype than the input.  Under
    autocast this is computed in float32; half precision is summed in float32.  A σ on a GPU is waited for,
    because the largest decides how far kernels reach.

    References
    ----------
    .. [1] ``torchvision.transforms.functional.gaussian_blur``, for one σ.

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import gaussian_blur2d
    >>> sigma = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    >>> gaussian_blur2d(torch.tensor([[[9.0, 0.0, 0.0, 9.0]]]), sigma, radius=1).round(decimals=2)
    tensor([[[9.0000, 0.0000, 2.4700, 4.0700]]])
    """
    (input,) = prepare({"input": input}, wide=True)
    rows, columns = _pair("sigma", sigma, input)
    turn = None if angle is None else _map("angle", angle, input)
    radii = [] if radius is None else int_pair("radius", radius, 0)
    options = _times(truncate), radii, boundary(padding_mode)
    return _blur_operators.gaussian_blur2d(input, rows, columns, turn, *options)


def bilateral_blur2d(
    input: Tensor,
    sigma_spatial: Width,
    sigma_range: Width,
    guide: Tensor | None = None,
    radius: int | None = None,
    truncate: float = 4.0,
    padding_mode: str = "reflect",
) -> Tensor:
    """Smooth images without blurring their edges, with widths that may differ at every pixel.

    .. math::

        y[b,c,p] = Σ_q w[b,p,q] x[b,c,q] / Σ_q w[b,p,q],
        w[b,p,q] = exp(−½ |q − p|² / σ_s[b,p]² − ½ Σ_c (g[b,c,q] − g[b,c,p])² / σ_r[b,p]²)

    over the square window of pixels q around p.  All channels share the weights.

    Parameters
    ----------
    input : Tensor
        Real images, shape (N, C, H, W) or (C, H, W).
    sigma_spatial : float or Tensor
        σ_s in pixels, ≥ 0: a number, a tensor of one, or a map that broadcasts to (N, 1, H, W).
    sigma_range : float or Tensor
        σ_r in the guide's units, ≥ 0; a number or a map.
    guide : Tensor, optional
        Image (N, C_guide, H, W) or (C_guide, H, W) whose differences count; the input itself by default.
    radius : int, optional
        The window reaches so far from each pixel, in place of `truncate`.
    truncate : float, optional
        Radius in units of σ_s, rounded.
    padding_mode : {"reflect", "zeros", "replicate", "circular"}, optional
        What lies outside the image and the guide, as in `torch.nn.Conv2d`; no padded copy is made.  The
        default is that of kornia's ``bilateral_blur``.  Zeros count as pixels.

    Returns
    -------
    Tensor
        Of the input's shape and dtype.

    Raises
    ------
    TypeError, ValueError
        As `gaussian_blur2d`.

    See Also
    --------
    cuvarconv.bilateral_filter : The array function.

    Notes
    -----
    Input, guide and both σ get gradients, radii held fixed; these have none themselves.  Autocast, dtypes
    and GPUs are as for `gaussian_blur2d`.  kornia's distance is the sum of |differences| by default; this
    is its ``color_distance_type="l2"``.

    References
    ----------
    .. [1] C. Tomasi and R. Manduchi, "Bilateral filtering for gray and color images", ICCV 1998.
    .. [2] G. Petschnigg et al., "Digital photography with flash and no-flash image pairs", SIGGRAPH 2004:
       the joint bilateral filter.

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import bilateral_blur2d
    >>> image = torch.tensor([[[0.0, 0.2, 0.0, 9.0, 8.8, 9.0]]])
    >>> bilateral_blur2d(image, 2.0, 1.0).round(decimals=1)
    tensor([[[0.1000, 0.1000, 0.1000, 8.9000, 8.9000, 8.9000]]])
    """
    input, *guide_if_any = prepare({"input": input} | ({} if guide is None else {"guide": guide}), wide=True)
    check_real("input", input)
    for features in guide_if_any:
        check_guide(input, features)
        check_real("guide", features)
    sigmas = (
        _without_channels(_map(name, sigma, input[..., :1, :, :]))
        for name, sigma in (("sigma_spatial", sigma_spatial), ("sigma_range", sigma_range))
    )
    if isinstance(radius, tuple | list):
        raise TypeError(f"radius: expected an int or None, got {radius!r}")
    reach = None if radius is None else int_pair("radius", radius, 0)[0]
    options = _times(truncate), reach, boundary(padding_mode)
    return _blur_operators.bilateral_blur2d(input, *sigmas, next(iter(guide_if_any), None), *options)


def _pair(name: str, value: Any, input: Tensor) -> tuple[Tensor, Tensor | None]:
    """Read one map for both axes, or one for rows and one for columns."""
    if isinstance(value, Tensor) and value.ndim == 1:
        value = tuple(value)
    if not isinstance(value, tuple | list):
        return _map(name, value, input), None
    if len(value) != 2:
        raise ValueError(
            f"{name}: expected a number, a map or a pair (rows, columns), got {len(value)} of them"
        )
    return _map(f"{name}[0]", value[0], input), _map(f"{name}[1]", value[1], input)


def _map(name: str, value: Any, input: Tensor) -> Tensor:
    """Read a number, or a map that broadcasts to the input."""
    if not isinstance(value, Tensor):
        given = number(name, value)
        if not isinstance(given, float):
            raise TypeError(f"{name}: expected a real number, got {value!r}")
        return torch.full((), given, dtype=torch.float64, device=input.device)
    check_parameter(name, value, input)
    missing = input.ndim - value.ndim
    if missing < 0 or not all(
        n == 1 or n == whole for n, whole in zip(value.shape, input.shape[missing:], strict=True)
    ):
        raise ValueError(
            f"{name}: expected a number or a map that broadcasts to {tuple(input.shape)}, "
            f"got shape {tuple(value.shape)}"
        )
    return value


def _without_channels(map: Tensor) -> Tensor:
    return map.squeeze(-3) if map.ndim > 2 else map


def _times(truncate: Any) -> float:
    times = number("truncate", truncate)
    if not isinstance(times, float) or not 0 <= times < math.inf:
        raise ValueError(f"truncate: expected a finite number of at least 0, got {truncate!r}")
    return times
