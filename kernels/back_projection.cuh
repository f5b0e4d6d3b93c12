// Backward through the weights of equation (2), for the gradients in its image and in its modulation:
//
//     t[row,column] = Σ_o conj(w[o,row]) g[o,column]        over the outputs o of a group
//
// A row is an input channel seen through a tap, a column an output pixel: what the two gradients have in
// common before one multiplies by d, the other by x.  A block makes BR rows of BP columns, a thread
// MICRO x MICRO of them, DEPTH outputs at a time.
#pragma once
#include "product.cuh"
#include "window.cuh"

template <class A> constexpr int DEPTH = sizeof(A) < 16 ? 16 : 8;
template <class A> constexpr int BLOCKS = sizeof(A) < 8 ? 2 : 1;  // per multiprocessor, at least: bounds the registers

template <class A, int BR, int BP> struct __align__(16) Tiles { A weights[DEPTH<A>][BR], outputs[DEPTH<A>][BP]; };

// The columns of a tile that a thread loads; they stay the same throughout a product.
template <int THREADS, int N, class T> struct Columns {
  static constexpr int SIDE_BY_SIDE = THREADS < N ? THREADS : N, COUNT = N / SIDE_BY_SIDE;
  const T* first[COUNT];  // null for zeros

  template <class At> __device__ __forceinline__ explicit Columns(At at)
  {
#pragma unroll
    for (int c = 0; c < COUNT; ++c) first[c] = at(threadIdx.x % SIDE_BY_SIDE + c * SIDE_BY_SIDE);
  }

  // tile[k][column] = conj(first[(o + k)*step]), or without conj; neighbouring threads read neighbouring columns.
  template <bool CONJUGATE, class A>
  __device__ __forceinline__ void load(A (*tile)[N], int count, int o, long long step) const
  {
#pragma unroll
    for (int c = 0; c < COUNT; ++c)
#pragma unroll 4
      for (int k = threadIdx.x / SIDE_BY_SIDE; k < count; k += THREADS / SIDE_BY_SIDE) {
        const A value = first[c] == nullptr ? number<A>(0, 0) : widen(first[c][(o + k) * step]);
        tile[k][threadIdx.x % SIDE_BY_SIDE + c * SIDE_BY_SIDE] = CONJUGATE ? conjugate(value) : value;
      }
  }
};

// sums += t.  w_at(row) and g_at(column) say where w and g of the first output lie, or null for zeros.
// The block has passed a barrier since it last read the tiles, or wrote what they look up.
template <class T, class A, int BR, int BP, class W, class G>
__device__ __forceinline__ void back_project(
    A (&sums)[MICRO][MICRO], Tiles<A, BR, BP>& tiles, W w_at, long long w_output, G g_at, long long g_output,
    int outputs, int down, int across)
{
  constexpr int THREADS = BR * BP / (MICRO * MICRO);
  const Columns<THREADS, BR, T> w(w_at);
  const Columns<THREADS, BP, T> g(g_at);
  for (int o = 0; o < outputs; o += DEPTH<A>) {
    const int count = min(DEPTH<A>, outputs - o);
    if (o > 0) __syncthreads();  // the previous step is read
    w.template load<true>(tiles.weights, count, o, w_output);
    g.template load<false>(tiles.outputs, count, o, g_output);
    __syncthreads();
    multiply_tiles<BP / MICRO>(sums, tiles.weights, tiles.outputs, count, down, across);
  }
}
