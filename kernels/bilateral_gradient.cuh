// What the gradients of the bilateral filter share.  For y = Σ_q w x / D, D = Σ_q w, with the
// weights w(p,q) of bilateral.cuh, and e, the gradient in y, let
//
//     E(p,q) = Re Σ_c conj(e[c,p]) (x[c,q] - y[c,p]) = a(p,q) - b(p)
//
// with x[c,p], which is near y[c,p], taken off both: a(p,q) = Re Σ_c conj(e[c,p]) (x[c,q] - x[c,p]).  Then
//
//     g_x[c,h] = Σ_p w(p,h)/D(p) e[c,p]                                         over the p that read h
//     g_g[k,h] = Σ_p w(p,h)/D(p) E(p,h) (g[k,p] - g[k,h])/σ_r(p)²               over the p that read h
//              + Σ_q w(h,q)/D(h) E(h,q) (g[k,q] - g[k,h])/σ_r(h)²               over the taps of h
//     g_σs[p] = Σ_q w/D E |q - p|²/σ_s³,  g_σr[p] = Σ_q w/D E |g[q] - g[p]|²/σ_r³
//
// Arrays are those of bilateral.cu, e is like y.  `bilateral_gradient_sums` walks the taps of some outputs p,
// and makes g_σs and g_σr, or the records of p: 1/D, b and the falloff.  With these the other two gather g_x
// and g_g, from the outputs centred around h, and from those that a boundary mode makes read h: the inverse
// tables say which.  Outputs are numbered as in a list of those that are needed.
//
// A thread owns V pixels, or outputs, one below the other, and neighbouring threads neighbouring columns:
// what lies at a place q is then read once for V of them, by whole warps side by side.
#pragma once
#include "bilateral.cuh"

constexpr int THREADS = 128;
constexpr int CHANNELS = 4;  // of a thread

// What is kept of each output, one image of each.
enum Field { INVERSE_NORM, MEAN, UNIT, SPATIAL, RADIUS };

template <class R> __device__ __forceinline__ R minus(R a, R b) { return a - b; }
__device__ __forceinline__ c64 minus(c64 a, c64 b) { return {a.re - b.re, a.im - b.im}; }
__device__ __forceinline__ c128 minus(c128 a, c128 b) { return {a.re - b.re, a.im - b.im}; }

// sum + Re conj(a) b
template <class R> __device__ __forceinline__ R add_product(R sum, R a, R b) { return multiply_add(a, b, sum); }
__device__ __forceinline__ float add_product(float sum, c64 a, c64 b)
{
  return multiply_add(a.im, b.im, multiply_add(a.re, b.re, sum));
}
__device__ __forceinline__ double add_product(double sum, c128 a, c128 b)
{
  return multiply_add(a.im, b.im, multiply_add(a.re, b.re, sum));
}

template <class A> constexpr int ROWS = 16 / sizeof(A);                             // V for the image's gradient
template <class A> constexpr int FEWER_ROWS = sizeof(A) < 8 ? 8 / sizeof(A) : 1;  // for the others, as registers allow

// An array by output or by pixel, with its channels.
template <class T> struct Planes {
  const T* data;
  long long step, row, column;

  __device__ __forceinline__ Features<T> at(long long i, long long j) const { return {data + (i * row + j * column), step}; }
};

// The channels of V pixels, one below the other, of which those from `begin` up to `end` exist; CHANNELS of the
// channels are kept at hand.
template <class T, int V> struct Column {
  typedef accumulator<T> A;
  Features<T> top;
  long long row;
  int begin, end, first, channels;
  A kept[CHANNELS][V];

  __device__ __forceinline__ Column(const Planes<T>& from, long long i, long long j, int begin, int end, int first, int channels)
      : top(from.at(i, j)), row(from.row), begin(begin), end(end), first(first), channels(channels)
  {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
      for (int v = 0; v < V; ++v) kept[c][v] = first + c < channels ? read(first + c, v) : number<A>(0, 0);
  }
  __device__ __forceinline__ A read(int c, int v) const
  {
    return v >= begin && v < end ? widen(top.data[c * top.step + v * row]) : number<A>(0, 0);
  }
  // f(c, v, value) for all channels
  template <class F> __device__ __forceinline__ void each(F f) const
  {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
      if (first + c < channels) f(first + c, [&](int v) { return kept[c][v]; });
#pragma unroll 1
    for (int c = 0; c < channels; ++c)
      if (c < first || c >= first + CHANNELS) f(c, [&](int v) { return read(c, v); });
  }
};

// sums[v] = Σ_k ((q[k] - own[k,v])*units[v])², with `outside` for q[k] where q is null
template <int V, class R, class G>
__device__ __forceinline__ void square_differences(
    R (&sums)[V], const Column<G, V>& own, Features<G> q, const R (&units)[V], R outside)
{
#pragma unroll
  for (int v = 0; v < V; ++v) sums[v] = 0;
  own.each([&](int k, auto value) {
    const R there = value_at(q.data, k * q.step, outside);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const R difference = (there - value(v)) * units[v];
      sums[v] = multiply_add(difference, difference, sums[v]);
    }
  });
}

// products[v] = Re Σ_c conj(e[c,v]) (q[c] - own[c,v]), with cval for q[c] where q is null
template <int V, class R, class T, class A>
__device__ __forceinline__ void multiply_excess(
    R (&products)[V], const Column<T, V>& e, const Column<T, V>& own, Features<T> q, A cval)
{
#pragma unroll
  for (int v = 0; v < V; ++v) products[v] = 0;
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c)
    if (c < own.channels) {
      const A there = value_at(q.data, c * q.step, cval);
#pragma unroll
      for (int v = 0; v < V; ++v) products[v] = add_product(products[v], e.kept[c][v], minus(there, own.kept[c][v]));
    }
#pragma unroll 1
  for (int c = CHANNELS; c < own.channels; ++c) {
    const A there = value_at(q.data, c * q.step, cval);
#pragma unroll
    for (int v = 0; v < V; ++v) products[v] = add_product(products[v], e.read(c, v), minus(there, own.read(c, v)));
  }
}

// The records of some outputs.
template <class R> struct Records {
  const R* data;
  int outputs, width;
  bool uniform;  // all have the first one's falloff

  __device__ __forceinline__ R get(Field field, int output) const { return data[field * outputs + output]; }
  __device__ __forceinline__ Falloff<R> falloff(int output) const
  {
    const int at = uniform ? 0 : output;
    return {get(UNIT, at), (R)HALF_LOG2_E, get(SPATIAL, at), (int)get(RADIUS, at)};
  }
};

// A block's share of the work: pixels (h + v, w), v < pixels, and channels from the first on.
struct Share {
  bool exists;
  int h, w, pixels, first, count;
  long long sample;

  __device__ __forceinline__ Share(int height, int width, int channels, int rows)
  {
    unsigned block = blockIdx.x;
    const int lines = (height - 1) / rows + 1;
    const unsigned tiles = (lines * width - 1) / THREADS + 1, parts = (channels - 1) / CHANNELS + 1;
    const int column = block % tiles * THREADS + threadIdx.x;  block /= tiles;
    first = block % parts * CHANNELS;                          block /= parts;
    sample = block;
    exists = column < lines * width;
    h = column / width * rows;
    w = column % width;
    pixels = min(rows, height - h);
    count = min(CHANNELS, channels - first);
  }
};
