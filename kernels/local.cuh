// What the kernels for full kernels k[m,n,i,j,c,o] share: the threads of a block, their way over taps and
// channels, and their sums.
//
// A pixel has a matrix (C_in x C_out) for each tap, and these matrices are the traffic.  A block takes some
// neighbouring pixels, counted row by row, and gives each a team of c_lanes * o_lanes threads, the o-lanes
// side by side.  Together they cover a part of the matrix that is as long as a cache line at least, and
// walk over the matrix and the taps.  A thread owns V neighbouring outputs o, 16 bytes, and moves them at
// once.  What the lanes of a team have summed is added up in shared memory at the end, in their order.
// Long sums are cut into stretches that are added there too, so that rounding errors do not pile up.
#pragma once
#include "numbers.cuh"

constexpr int THREADS = 128;
constexpr int STRETCH = 64;  // terms of a sum that are added up before the next ones

// The threads of a block, and this one among them: idle if pixel >= pixels.
struct Team {
  int c_lanes, o_lanes, pixels, pitch;  // teams of a block, one per pixel; places in shared memory, odd for its banks
  int pixel, c_lane, o_lane;

  __device__ __forceinline__ Team(int c_lanes, int o_lanes) : c_lanes(c_lanes), o_lanes(o_lanes) {
    const unsigned size = c_lanes * o_lanes, lane = threadIdx.x % size;
    pixels = THREADS / size;
    pitch = size | 1;
    pixel = threadIdx.x / size;
    c_lane = lane / o_lanes;
    o_lane = lane - c_lane * o_lanes;
  }
  __device__ __forceinline__ int places() const { return pixels * pitch; }
  __device__ __forceinline__ int place() const { return pixel * pitch + c_lane * o_lanes + o_lane; }
};

// A block's share of the work; the grid runs over samples first, then channels, pixels and groups.
struct Share {
  int sample, channel, pixel;  // the first ones
  long long group;

  __device__ __forceinline__ Share(int samples, int samples_each, int channels, int channels_each, int pixels, int pixels_each) {
    unsigned block = blockIdx.x;
    const unsigned sample_tiles = (samples - 1) / samples_each + 1, channel_tiles = (channels - 1) / channels_each + 1;
    const unsigned pixel_tiles = (pixels - 1) / pixels_each + 1;
    sample = block % sample_tiles * samples_each;     block /= sample_tiles;
    channel = block % channel_tiles * channels_each;  block /= channel_tiles;
    pixel = block % pixel_tiles * pixels_each;        block /= pixel_tiles;
    group = block;
  }
};

// An output's entries of the index tables, for all taps; -1 is cval.
struct Window { const long long *rows, *columns; int rd, cd, kh, kw; };

// A thread's way over k and x: the taps (m, n), and for each the channels c + c_lane, c in steps of c_lanes.
template <class T, class K> struct Path {
  const Window window;
  const T* const image;                      // the thread's first channel
  const long long x_row, x_column, x_lanes;  // steps in x: x_lanes to the thread's next channel
  const long long k_lanes, k_next, k_down;   // steps in k: likewise, from there to the next tap, the next row of taps
  const int channels, c_lanes, c_lane;

  int m = 0, n = 0, c = 0;
  long long row;
  bool inside;  // whether the pixel lies in the image; else the first one is named
  const T* pixel;
  K* kernel;

  __device__ __forceinline__ void start() {
    row = window.rows[0];
    look_up();
  }
  __device__ __forceinline__ void look_up() {
    const long long column = window.columns[n * window.cd];
    inside = row >= 0 && column >= 0;
    pixel = inside ? image + row * x_row + column * x_column : image;
  }
  __device__ __forceinline__ bool more() const { return m < window.kh; }
  __device__ __forceinline__ bool here() const { return more() && c + c_lane < channels; }
  __device__ __forceinline__ bool stays(int steps) const { return c + (steps - 1) * c_lanes < channels; }
  // To the next channel; `turn` must follow, at the latest where the path no longer stays with its tap.
  __device__ __forceinline__ void step() {
    c += c_lanes;
    pixel += x_lanes;
    kernel += k_lanes;
  }
  // To the next tap, if all channels are through; beyond the end that is harmless, for nothing is here() then.
  __device__ __forceinline__ void turn() {
    if (c < channels) return;
    c = 0;
    kernel += k_next;
    if (++n == window.kw) {
      n = 0;
      kernel += k_down;
      if (++m < window.kh) row = window.rows[m * window.rd];
    }
    look_up();
  }
};

// Read what is read once: it is the first to leave the caches, so that pixels stay.
template <int BYTES> struct Bits;
template <> struct Bits<2> { typedef unsigned short type; };
template <> struct Bits<4> { typedef unsigned int type; };
template <> struct Bits<8> { typedef uint2 type; };
template <> struct Bits<16> { typedef uint4 type; };

template <class T, int V> __device__ __forceinline__ Pack<T, V> load_once(const T* from) {
  const auto bits = __ldcs(reinterpret_cast<const typename Bits<sizeof(T) * V>::type*>(from));
  Pack<T, V> values;
  memcpy(&values, &bits, sizeof values);
  return values;
}

// totals[n*places] += sums[n], which then start again from 0
template <class A, int N> __device__ __forceinline__ void move_sums(A* totals, int places, A (&sums)[N]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    totals[n * places] = add(totals[n * places], sums[n]);
    sums[n] = number<A>(0, 0);
  }
}

// Σ totals[lane*step] over the lanes, in their order
template <class A> __device__ __forceinline__ A sum_lanes(const A* totals, int step, int lanes) {
  A sum = totals[0];
#pragma unroll 1
  for (int lane = 1; lane < lanes; ++lane) sum = add(sum, totals[lane * step]);
  return sum;
}

struct Steps { long long sample, channel, row, column; };  // strides of images

// y[s, q, pixel] = sum(pixel of the block, q, s) for a block's samples and channels; neighbouring threads store
// neighbouring pixels.
template <int S, class T, class F>
__device__ __forceinline__ void store_sums(
    T* y, const Steps& steps, const Team& team, int first_pixel, int pixels, int width, int kept, int active, F sum)
{
  const int at = threadIdx.x % team.pixels, first = threadIdx.x / team.pixels, side_by_side = THREADS / team.pixels;
  const int p = first_pixel + at;
  if (p >= pixels || first >= side_by_side) return;
  y += p / width * steps.row + p % width * steps.column;
#pragma unroll 1
  for (int q = first; q < kept; q += side_by_side)
#pragma unroll
    for (int s = 0; s < S; ++s)
      if (s < active) y[s * steps.sample + q * steps.channel] = Narrow<T>::from(sum(at, q, s));
}
