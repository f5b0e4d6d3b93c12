"""The bilateral filter: the mean of what is near, in place and in value."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._arguments import is_lazy, number
from cuvarconv._backend import Call, receive
from cuvarconv._dtypes import accumulator_dtype, check_cval, computing_dtype, filter_dtype, product_dtype
from cuvarconv._gradients import check_gradient, requested
from cuvarconv._shapes import align_map, channel_order, with_channels, with_image
from cuvarconv._window import Window, make_window


def bilateral_filter(
    input: Any,
    sigma_spatial: Any,
    sigma_range: Any,
    *,
    guide: Any = None,
    channel_axis: int | None = None,
    radius: int | None = None,
    truncate: float = 4.0,
    mode: Any = "reflect",
    cval: float = 0.0,
    output: Any = None,
) -> Any:
    """Smooth images without blurring their edges, with widths that may differ at every pixel.

    .. math::

        y[p] = Σ_q w[p,q] x[q] / Σ_q w[p,q],
        w[p,q] = exp(−½ |q − p|² / σ_s[p]² − ½ ‖g[q] − g[p]‖² / σ_r[p]²)

    over the square window of pixels q around p; ‖·‖ is the Euclidean length over the channels of the
    guide g, which is x itself unless another is given.

    Parameters
    ----------
    input : array_like
        Images, shape (…, H, W), with `channel_axis` one axis more.  Complex only with a `guide`.
    sigma_spatial : float or array_like
        Spatial width σ_s in pixels, ≥ 0; a number, or a map that broadcasts to (…, H_out, W_out), the
        result's shape without its channel axis.
    sigma_range : float or array_like
        Range width σ_r in the guide's units, ≥ 0; a number or a map.  Infinity makes it a Gaussian blur.
    guide : array_like, optional
        Real image that the differences are taken of (joint bilateral filter).  Its height and width
        are the input's; its batch axes broadcast to the input's.
    channel_axis : int or None, optional
        Axis of the input's and the guide's channels, each with a length of its own: their difference is
        one distance, and all channels of the input get the same weights.  With `guide`, one of the two
        may be a single grey image, (H, W).  None: each leading axis is a batch axis.
    radius : int, optional
        The window reaches so far from each pixel, whatever σ_s is.
    truncate : float, optional
        Without `radius`, it reaches int(truncate·σ_s[p] + 0.5); farther taps do not exist for p.
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.  Under ``"valid"`` the largest radius decides
        what is left.
    cval : float, optional
        The value outside under ``"constant"``, of image and guide alike.  It counts as a pixel.
    output : array or dtype, optional
        The array to write, or the dtype of the result; by default the input's.

    Returns
    -------
    array
        The caller's kind of array, on the same device, of the input's shape but under ``"valid"``.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported, and operands in different places.
    ValueError
        For values and shapes that do not fit.  Nothing has been written then.

    See Also
    --------
    bilateral_filter_vjp : Its gradients.
    affinity : The range weights alone, stored.

    Notes
    -----
    It computes in ``numpy.result_type(input, guide)``, whatever the dtype of the σ, float64 for integers
    and at least float32; integer results are truncated.  Where σ_s or σ_r is 0 the pixel stays as it
    is.  Elsewhere no tap is skipped: a NaN under the window gives NaN, and so does an infinity of an
    image that is its own guide, since 0·∞ is NaN.  A pixel where another guide is infinite has no
    weight for its neighbours, and is itself NaN.

    References
    ----------
    .. [1] C. Tomasi and R. Manduchi, "Bilateral filtering for gray and color images", ICCV 1998.
    .. [2] G. Petschnigg et al., "Digital photography with flash and no-flash image pairs", SIGGRAPH 2004:
       the joint bilateral filter.

    Examples
    --------
    Noise goes, the edge stays:

    >>> import numpy as np
    >>> import cuvarconv
    >>> image = np.array([[0.0, 0.2, 0.0, 9.0, 8.8, 9.0]])
    >>> cuvarconv.bilateral_filter(image, 2.0, 1.0).round(1)
    array([[0.1, 0.1, 0.1, 8.9, 8.9, 8.9]])
    """
    operands = _operands(input, guide, sigma_spatial, sigma_range)
    with receive(output, **operands) as call:
        given = dict(zip(operands, call.operands, strict=True))
        images, features = given["input"], given.get("guide", given["input"])
        filter = _make_filter(operands, given, channel_axis, radius, truncate, mode, cval)
        dtype = call.output_dtype(filter_dtype(images.dtype, features.dtype))
        result = call.target(filter.result_shape, dtype)
        planes = filter.image(images)
        call.home.backend.bilateral(
            planes,
            planes if guide is None else filter.guide(features),
            *filter.sigmas(given),
            filter.image(result),
            filter.window,
            truncate=filter.truncate,
            dtype=computing_dtype((images.dtype, features.dtype), dtype),
        )
        return call.deliver(result)


def bilateral_filter_vjp(
    grad: Any,
    input: Any,
    sigma_spatial: Any,
    sigma_range: Any,
    *,
    wrt: Any = ("input",),
    guide: Any = None,
    channel_axis: int | None = None,
    radius: int | None = None,
    truncate: float = 4.0,
    mode: Any = "reflect",
    cval: float = 0.0,
) -> Any:
    """Return the gradients of `bilateral_filter`, each pixel's radius held fixed.

    For y = bilateral_filter(x, …), a loss L with gradient h in y, and

    .. math::

        v[p,q] = w[p,q] / Σ_q w[p,q],   e[p,q] = v[p,q] · Re Σ_c conj(h[p]) (x[q] − y[p])

    they are

    .. math::

        dL/dx[q] = Σ_p h[p] v[p,q],
        dL/dg[r] = Σ_q e[r,q] (g[q] − g[r]) / σ_r[r]² + Σ_p e[p,r] (g[p] − g[r]) / σ_r[p]²,
        dL/dσ_r[p] = Σ_q e[p,q] ‖g[q] − g[p]‖² / σ_r[p]³,
        dL/dσ_s[p] = Σ_q e[p,q] |q − p|² / σ_s[p]³

    Without a guide the gradient in the input is the sum of the first two.  What is outside under
    ``"constant"`` has none.  Where a σ is 0 the pixel is itself: it has a gradient in x alone.

    Parameters
    ----------
    grad : array_like
        Gradient of the loss in the result, of the result's shape.
    input, sigma_spatial, sigma_range, guide
        The operands of `bilateral_filter`.
    wrt : str or tuple of str, optional
        The operands whose gradients are asked for: ``"input"``, ``"guide"`` if there is one,
        ``"sigma_spatial"`` and ``"sigma_range"``.
    channel_axis, radius, truncate, mode, cval
        As for `bilateral_filter`.

    Returns
    -------
    tuple of arrays, or one array
        In the order of `wrt`, each of its operand's shape and dtype (float64 for integers and numbers);
        the array itself if `wrt` is a name.

    Raises
    ------
    TypeError, ValueError
        As `bilateral_filter`, and for a `grad` that has not the shape of the result.

    Notes
    -----
    An image that is its own guide costs one more image of memory.

    References
    ----------
    .. [1] C. Tomasi and R. Manduchi, "Bilateral filtering for gray and color images", ICCV 1998.

    Examples
    --------
    What the first pixel is made of, and how much the range width matters to it:

    >>> import numpy as np
    >>> import cuvarconv
    >>> x, guide, grad = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]), np.array([[1.0, 0.0]])
    >>> wrt = "input", "sigma_range"
    >>> weights, slope = cuvarconv.bilateral_filter_vjp(grad, x, 1.0, 1.0, wrt=wrt, guide=guide, radius=1)
    >>> weights.round(3), round(float(slope), 3)
    (array([[0.951, 0.049]]), -0.185)
    """
    operands = {"grad": grad, **_operands(input, guide, sigma_spatial, sigma_range)}
    with receive(None, **operands) as call:
        given = dict(zip(operands, call.operands, strict=True))
        names = requested(wrt, tuple(operands)[1:])
        filter = _make_filter(operands, given, channel_axis, radius, truncate, mode, cval)
        check_gradient(given["grad"].shape, filter.result_shape)
        results = {name: call.fresh(given[name].shape, product_dtype((given[name].dtype,))) for name in names}
        if any(array.size == 0 for array in given.values()):
            for result in results.values():
                result[...] = 0  # empty sums
        elif results:
            _fill_gradients(call, filter, given, results)
        handed = tuple(call.hand_over(results[name]) for name in names)
        return handed[0] if isinstance(wrt, str) else handed


def _fill_gradients(call: Call, filter: _Filter, given: dict[str, Any], results: dict[str, Any]) -> None:
    images = given["input"]
    factors = tuple(given[name].dtype for name in ("grad", "input", "guide") if name in given)
    dtype = computing_dtype(factors, product_dtype((images.dtype,)))
    planes = filter.image(images)
    asked = dict(results)
    alone = "guide" not in given and "input" in results
    if alone:
        wide = np.empty(0, accumulator_dtype(dtype)).real.dtype
        for name in ("input", "guide"):
            asked[name] = call.fresh(images.shape, wide)
    views = (
        None if name not in asked else view(asked[name])
        for name, view in (
            ("input", filter.image),
            ("guide", filter.guide),
            ("sigma_spatial", filter.sigma),
            ("sigma_range", filter.sigma),
        )
    )
    call.home.backend.bilateral_gradient(
        filter.image(given["grad"]),
        planes,
        filter.guide(given["guide"]) if "guide" in given else planes,
        *filter.sigmas(given),
        tuple(views),
        filter.window,
        truncate=filter.truncate,
        dtype=dtype,
    )
    if alone:
        asked["input"] += asked["guide"]
        results["input"][...] = asked["input"]


@dataclass(frozen=True)
class _Filter:
    """The geometry of a call, and its arrays as the backends take them."""

    image_axis: int | None
    guide_axis: int | None
    batch: tuple[int, ...]
    result_shape: tuple[int, ...]
    window: Window
    truncate: float | None

    def image(self, array: Any) -> Any:
        """View the input or the result as (batch…, C, H, W)."""
        return with_channels("input", array, self.image_axis)

    def guide(self, array: Any) -> Any:
        """View the guide as (batch…, features, H, W)."""
        view = with_channels("guide", array, self.guide_axis)
        return view[(None,) * (len(self.batch) + 3 - view.ndim)]

    def sigma(self, array: Any, name: str = "sigma") -> Any:
        """View a map or a number as (batch…, H_out, W_out)."""
        return align_map(name, array, (*self.batch, *self.window.output_shape))

    def sigmas(self, given: dict[str, Any]) -> tuple[Any, Any]:
        """View both."""
        return (
            self.sigma(given["sigma_spatial"], "sigma_spatial"),
            self.sigma(given["sigma_range"], "sigma_range"),
        )


_SIGMAS = ("sigma_spatial", "sigma_range")


def _operands(input: Any, guide: Any, sigma_spatial: Any, sigma_range: Any) -> dict[str, Any]:
    joint = {} if guide is None else {"guide": guide}
    return {"input": input, **joint, "sigma_spatial": sigma_spatial, "sigma_range": sigma_range}


def _make_filter(
    operands: dict[str, Any],
    given: dict[str, Any],
    channel_axis: Any,
    radius: Any,
    truncate: Any,
    mode: Any,
    cval: Any,
) -> _Filter:
    images = given["input"]
    features = _check_dtypes(given)
    image_axis, guide_axis = _channel_axes(images, features, channel_axis)
    order = channel_order("input", images.shape, image_axis)
    planes, likeness = (
        with_channels("input", images, image_axis),
        with_channels("guide", features, guide_axis),
    )
    _check_guide(features.shape, likeness.shape, planes.shape)
    largest = {name: _largest(name, operands[name], given[name]) for name in _SIGMAS}
    if radius is None and is_lazy(given["sigma_spatial"]):
        raise ValueError(
            "radius: expected an int where sigma_spatial is a dask array, whose values are not known yet, "
            "got None"
        )
    if largest["sigma_spatial"] == math.inf:
        raise ValueError("sigma_spatial: expected finite numbers, got inf")
    reach, truncate = _reach(radius, truncate, largest["sigma_spatial"])
    window = make_window(
        (2 * reach + 1,) * 2, planes.shape[-2:], mode=mode, cval=cval, origin=0, stride=1, dilation=1
    )
    check_cval(window.cval, features.dtype)
    shape = with_image(images.shape, order, window.output_shape)
    return _Filter(image_axis, guide_axis, planes.shape[:-3], shape, window, truncate)


def _check_dtypes(given: dict[str, Any]) -> Any:
    """Refuse complex numbers where they have no meaning; return the guide."""
    if given["input"].dtype.kind == "c" and "guide" not in given:
        raise TypeError(f"guide: expected a real guide for a complex input, {given['input'].dtype}, got None")
    for name, array in given.items():
        if name not in ("grad", "input") and array.dtype.kind == "c":
            raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return given.get("guide", given["input"])


def _channel_axes(images: Any, features: Any, channel_axis: Any) -> tuple[int | None, int | None]:
    """Return the channel axes of input and guide; None where there is one channel without an axis."""
    if channel_axis is None or features is images:
        return channel_axis, channel_axis
    if images.ndim == 2 < features.ndim:
        return None, channel_axis
    channel_order("input", images.shape, channel_axis)
    from_end = operator.index(channel_axis) % images.ndim - images.ndim
    return channel_axis, None if features.ndim == 2 else from_end


def _check_guide(shape: tuple[int, ...], features: tuple[int, ...], planes: tuple[int, ...]) -> None:
    missing = len(planes) - len(features)
    if (
        missing < 0
        or features[-2:] != planes[-2:]
        or any(
            not (length == 1 or length == whole)
            for length, whole in zip(features[:-3], planes[missing:-3], strict=True)
        )
    ):
        raise ValueError(
            f"guide: expected height and width {planes[-2:]} and batch axes that broadcast to "
            f"{planes[:-3]}, got shape {shape}"
        )


def _largest(name: str, operand: Any, array: Any) -> float:
    """Return the largest number of a σ; none may be negative or NaN."""
    if array.size == 0 or is_lazy(array):
        return 0.0
    if isinstance(operand, int | float | np.generic):
        lowest = highest = float(operand)
    else:
        lowest, highest = float(array.min()), float(array.max())
    if not lowest >= 0:
        raise ValueError(f"{name}: expected numbers of at least 0, got {lowest}")
    return highest


def _reach(radius: Any, truncate: Any, sigma: float) -> tuple[int, float | None]:
    """Return the window's radius, and what is to be made of `truncate` at each pixel."""
    if radius is not None:
        try:
            reach = operator.index(radius)
        except TypeError:
            raise TypeError(f"radius: expected an int or None, got {radius!r}") from None
        if reach < 0:
            raise ValueError(f"radius: expected at least 0, got {reach}")
        return reach, None
    times = number("truncate", truncate)
    if not isinstance(times, float) or not 0 <= times < math.inf:
        raise ValueError(f"truncate: expected a finite number of at least 0, got {truncate!r}")
    return int(times * sigma + 0.5), times
