"""The bilateral filter: the mean of what is near, in place and in value."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuvarconv._backend import Call, receive
from cuvarconv._bilateral_geometry import Filter, make_filter, named_operands
from cuvarconv._dtypes import accumulator_dtype, computing_dtype, filter_dtype, product_dtype
from cuvarconv._gradients import check_gradient, requested


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
    weight for its neighbours, and is itself NaN.  For an image that is its own guide weights below 2⁻¹⁰⁰,
    in double precision 2⁻⁹⁰⁰, may count as 0: that of a pixel for itself is 1.

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
    operands = named_operands(input, guide, sigma_spatial, sigma_range)
    with receive(output, **operands) as call:
        given = dict(zip(operands, call.operands, strict=True))
        images, features = given["input"], given.get("guide", given["input"])
        filter = make_filter(operands, given, channel_axis, radius, truncate, mode, cval)
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
    operands = {"grad": grad, **named_operands(input, guide, sigma_spatial, sigma_range)}
    with receive(None, **operands) as call:
        given = dict(zip(operands, call.operands, strict=True))
        names = requested(wrt, tuple(operands)[1:])
        filter = make_filter(operands, given, channel_axis, radius, truncate, mode, cval)
        check_gradient(given["grad"].shape, filter.result_shape)
        results = {name: call.fresh(given[name].shape, product_dtype((given[name].dtype,))) for name in names}
        if any(array.size == 0 for array in given.values()):
            for result in results.values():
                result[...] = 0  # empty sums
        elif results:
            _fill_gradients(call, filter, given, results)
        handed = tuple(call.hand_over(results[name]) for name in names)
        return handed[0] if isinstance(wrt, str) else handed


def _fill_gradients(call: Call, filter: Filter, given: dict[str, Any], results: dict[str, Any]) -> None:
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
