// The weights of the bilateral filter, for the filter and its gradient:
//
//     w(p,q) = exp(-½|q - p|²/σ_s(p)²) exp(-½ Σ_k (g[k,q] - g[k,p])²/σ_r(p)²)
//
// with q in the square of p's own radius around p; it is cut off by the window, and what is beyond does
// not exist.  A weight is one power of two: its exponent is the sum of both.  Where a σ is 0, p keeps its value.
#pragma once
#include "numbers.cuh"

// The guide is real where the image is complex, and so are the weights.
template <class T> struct real_of { typedef T type; };
template <> struct real_of<c64> { typedef float type; };
template <> struct real_of<c128> { typedef double type; };
template <class T> using guide_of = typename real_of<T>::type;
template <class T> using weight_of = accumulator<guide_of<T>>;

template <class R> constexpr R LARGEST = 3e38f;  // about; keeps 0 * LARGEST = 0
template <> constexpr double LARGEST<double> = 1e308;
template <class R> constexpr int MOST_SCALING = 60;  // powers of two
template <> constexpr int MOST_SCALING<double> = 480;
constexpr double HALF_LOG2_E = 0.72134752044448170368;  // exp(-½a) = 2^(-HALF_LOG2_E a)
constexpr double TWICE_LN_2 = 1.38629436111989061883;

__device__ __forceinline__ float power_of_two(float exponent) { return exp2f(exponent); }
__device__ __forceinline__ double power_of_two(double exponent) { return exp2(exponent); }

// sum + w*x for a real w
__device__ __forceinline__ float add_weighted(float sum, float w, float x) { return multiply_add(w, x, sum); }
__device__ __forceinline__ double add_weighted(double sum, double w, double x) { return multiply_add(w, x, sum); }
template <class C, class R> __device__ __forceinline__ C add_weighted(C sum, R w, C x)
{
  sum.re = multiply_add(w, x.re, sum.re);
  sum.im = multiply_add(w, x.im, sum.im);
  return sum;
}

template <class R> __device__ __forceinline__ R divided(R x, R by) { return x / by; }
template <class C, class R> __device__ __forceinline__ C divided(C x, R by) { x.re /= by;  x.im /= by;  return x; }

// How the weights of an output fall off, in units of the power of two's exponent.
template <class R> struct Falloff {
  R unit;     // what differences of the guide are multiplied with; -1 where p keeps its value
  R range;    // of their squares
  R spatial;  // of the squared distance in pixels
  int radius;

  // 2^-(range*difference + spatial*distance), both squared
  __device__ __forceinline__ R weight(R difference, R distance) const
  {
    return power_of_two(multiply_add(-range, difference, -(spatial * distance)));
  }
  __device__ __forceinline__ bool keeps() const { return unit < 0; }
};

template <class R> __device__ __forceinline__ R limited(double value) { return (R)fmin(value, (double)LARGEST<R>); }
template <class R> __device__ __forceinline__ R squared_distance(int down, int across)
{
  return multiply_add((R)down, (R)down, (R)across * (R)across);
}

// Widths in pixels and in the guide's units; `truncate` in units of the first, negative for the whole window.
template <class R> __device__ __forceinline__ Falloff<R> falloff(double spatial, double range, double truncate, int most)
{
  if (spatial == 0 || range == 0) return {-1, 0, 0, 0};
  const double reach = __dadd_rn(__dmul_rn(truncate, spatial), 0.5);  // rounded twice, as on the host
  const int radius = truncate < 0 ? most : (int)fmin(reach, (double)most);
  return {limited<R>(1 / range), (R)HALF_LOG2_E, limited<R>(HALF_LOG2_E / (spatial * spatial)), radius};
}

// The same with a power of two as the unit: then fma(a, unit, -b*unit) is (a - b)*unit, rounded once.
template <class R> __device__ __forceinline__ Falloff<R> scaled(Falloff<R> f, double range)
{
  if (f.keeps()) return f;
  const int power = max(-MOST_SCALING<R>, min(MOST_SCALING<R>, -ilogb(range)));
  const double unit = scalbn(1.0, power), rest = 1 / (range * unit);
  f.unit = (R)unit;
  f.range = limited<R>(HALF_LOG2_E * rest * rest);
  return f;
}

template <class A, class T> __device__ __forceinline__ A value_at(const T* at, long long channel, A outside)
{
  return at == nullptr ? outside : widen(at[channel]);
}

// Features of a pixel.
template <class G> struct Features { const G* data; long long step; };

// Σ_k ((q[k] - p[k])*unit)², with `outside` for q[k] where q is null
template <class R, class G>
__device__ __forceinline__ R squared_difference(Features<G> q, Features<G> p, int features, R unit, R outside)
{
  R sum = 0;
  for (int k = 0; k < features; ++k) {
    const R difference = (value_at(q.data, k * q.step, outside) - widen(p.data[k * p.step])) * unit;
    sum = multiply_add(difference, difference, sum);
  }
  return sum;
}
