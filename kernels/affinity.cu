// The likeness of features, and its gradient:
//
//     d[m,n,b,i,j] = exp(-½ Σ_c (s (g[b,c, tap (m,n) of (i,j)] - g[b,c, centre of (i,j)]))²)
//
//     g_g[b,c,h,w] = Σ e (g[b,c, centre of (i,j)] - g[b,c,h,w])    over all taps (m,n) of (i,j) that read (h,w)
//                  + Σ e (g[b,c, tap (m,n) of (i,j)] - g[b,c,h,w]) over all taps of the (i,j) centred at (h,w)
//
// with e = s² g_d[m,n,b,i,j] d[m,n,b,i,j].  g (batch, C, H, W), d and g_d (kh, kw, batch, H_out, W_out), of
// any strides (counted in elements).  The tap `centre` is the window's centre; s is 1/σ.  A tap outside the
// image (-1 in `rows` or `columns`) is infinitely far away, a centre outside counts as 0.
//
// Forward, the output is the traffic, kh*kw values per pixel, written once, neighbouring threads side by
// side; a thread makes TAPS neighbouring taps at a time, so that the centre is read once for them.  The
// gradient is a gather: a thread owns a pixel and CHANNELS of its features.
#include "numbers.cuh"
#include "adjoint.cuh"
#include "window.cuh"

constexpr int THREADS = 128;
constexpr int TAPS = 8;
constexpr int CHANNELS = 4;

template <class A> __device__ __forceinline__ A infinity() { return (A)__int_as_float(0x7f800000); }
__device__ __forceinline__ float exponential(float v) { return expf(v); }
__device__ __forceinline__ double exponential(double v) { return exp(v); }

// Features that are looked up through the window.
template <class T> struct Features { Seen<T> seen; long long channel; int count, rd, cd, centre_row, centre_column; };

template <class T>
__device__ __forceinline__ const T* tap_at(const Features<T>& g, int i, int j, int m, int n)
{
  return g.seen.at(i, j, m * g.rd, n * g.cd);
}

template <class A, class T> __device__ __forceinline__ A feature(const T* at, long long channel, A outside)
{
  return at == nullptr ? outside : widen(at[channel]);
}

// grid: one block per sample, row of taps and THREADS pixels (the pixels fastest)
template <class T>
__global__ void __launch_bounds__(THREADS)
affinity(
    const T* __restrict__ g, long long g_base, long long g_sample, long long g_channel, long long g_row, long long g_column,
    T* __restrict__ d, long long d_base, long long d_sample, long long d_m, long long d_n, long long d_row, long long d_column,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int centre_row, int centre_column, int kh, int kw, int height, int width, int channels, double sharpness)
{
  typedef accumulator<T> A;
  unsigned block = blockIdx.x;
  const unsigned tiles = (height * width - 1) / THREADS + 1;
  const int pixel = block % tiles * THREADS + threadIdx.x;  block /= tiles;
  const int m = block % kh;                                 block /= kh;
  const long long sample = block;
  if (pixel >= height * width) return;

  const int i = pixel / width, j = pixel - i * width;
  const Features<T> from = {{g + g_base + sample * g_sample, g_row, g_column, rows, rs, columns, cs},
                            g_channel, channels, rd, cd, centre_row, centre_column};
  const T* centre = tap_at(from, i, j, centre_row, centre_column);
  T* to = d + (d_base + sample * d_sample + m * d_m + i * d_row + j * d_column);
  for (int n = 0; n < kw; n += TAPS) {
    const T* taps[TAPS];
    A distances[TAPS];
#pragma unroll
    for (int u = 0; u < TAPS; ++u) {
      taps[u] = n + u < kw ? tap_at(from, i, j, m, n + u) : centre;
      distances[u] = 0;
    }
    for (int c = 0; c < channels; ++c) {
      const A middle = feature<A>(centre, c * g_channel, 0);
#pragma unroll
      for (int u = 0; u < TAPS; ++u) {
        const A difference = (feature<A>(taps[u], c * g_channel, infinity<A>()) - middle) * (A)sharpness;
        distances[u] = multiply_add(difference, difference, distances[u]);
      }
    }
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
      if (n + u < kw) to[(n + u) * d_n] = Narrow<T>::from(exponential((A)-0.5 * distances[u]));
  }
}

// s exp(-½ |s (a - b)|²); 0 where a is outside
template <class A, class T>
__device__ __forceinline__ A slope(const T* a, const T* b, const Features<T>& g, A sharpness)
{
  A distance = 0;
  for (int c = 0; c < g.count; ++c) {
    const A difference = (feature<A>(a, c * g.channel, infinity<A>()) - feature<A>(b, c * g.channel, 0)) * sharpness;
    distance = multiply_add(difference, difference, distance);
  }
  return sharpness * exponential((A)-0.5 * distance);
}

// grid: one block per sample, CHANNELS features and THREADS pixels (the pixels fastest)
template <class T>
__global__ void __launch_bounds__(THREADS, 4)  // or the compiler spills to fit in more blocks
affinity_gradient(
    const T* __restrict__ g, long long g_base, long long g_sample, long long g_channel, long long g_row, long long g_column,
    const T* __restrict__ e, long long e_base, long long e_sample, long long e_m, long long e_n, long long e_row, long long e_column,
    T* __restrict__ y, long long y_base, long long y_sample, long long y_channel, long long y_row, long long y_column,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    const int* __restrict__ row_readers, int height, const int* __restrict__ column_readers, int width,
    int first_row, int first_column, int centre_row, int centre_column, int kh, int kw, int channels, double sharpness)
{
  typedef accumulator<T> A;
  unsigned block = blockIdx.x;
  const unsigned tiles = (height * width - 1) / THREADS + 1, parts = (channels - 1) / CHANNELS + 1;
  const int pixel = block % tiles * THREADS + threadIdx.x;  block /= tiles;
  const int c0 = block % parts * CHANNELS;                  block /= parts;
  const long long sample = block;
  if (pixel >= height * width) return;

  const int h = pixel / width, w = pixel - h * width, count = min(CHANNELS, channels - c0);
  const T* image = g + g_base + sample * g_sample;
  const Features<T> from = {{image, g_row, g_column, rows, rs, columns, cs}, g_channel, channels, rd, cd, centre_row, centre_column};
  const InverseTable down = {row_readers, height}, across = {column_readers, width};
  const T* given = e + e_base + sample * e_sample;
  const T* here = image + ((first_row + h) * g_row + (first_column + w) * g_column);
  A own[CHANNELS], sums[CHANNELS];
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c) {
    own[c] = c < count ? widen(here[(c0 + c) * g_channel]) : (A)0;
    sums[c] = 0;
  }
  const auto add = [&](const T* there, A weight) {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
      if (c < count) {
        const A difference = (feature<A>(there, (c0 + c) * g_channel, 0) - own[c]) * (A)sharpness;
        sums[c] = multiply_add(weight, difference, sums[c]);
      }
  };

  for (int m = 0; m < kh; ++m)
    for_each_output(down, m, h, [&](int i) {
      for (int n = 0; n < kw; ++n)
        for_each_output(across, n, w, [&](int j) {
          const T* centre = tap_at(from, i, j, centre_row, centre_column);
          const A factor = widen(given[m * e_m + n * e_n + i * e_row + j * e_column]);
          add(centre, factor * slope(here, centre, from, (A)sharpness));
        });
    });
  for_each_output(down, centre_row, h, [&](int i) {
    for_each_output(across, centre_column, w, [&](int j) {
      for (int m = 0; m < kh; ++m)
        for (int n = 0; n < kw; ++n) {
          const T* tap = tap_at(from, i, j, m, n);
          if (tap == nullptr) continue;
          const A factor = widen(given[m * e_m + n * e_n + i * e_row + j * e_column]);
          add(tap, factor * slope(tap, here, from, (A)sharpness));
        }
    });
  });
  T* to = y + (y_base + sample * y_sample + h * y_row + w * y_column);
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c)
    if (c < count) to[(c0 + c) * y_channel] = Narrow<T>::from(sums[c]);
}
