// Register-tiled matrix products: of two tiles in shared memory, a thread owns MICRO x MICRO sums.
//
// Its rows are neighbours, its columns neighbours by twos: both tiles are then read by wide instructions,
// about three wavefronts for the 16 products of a thread, while threads that hold columns of pixels still
// read and write global memory side by side.
#pragma once
#include "numbers.cuh"

constexpr int MICRO = 4;
template <class A> constexpr int WIDE = 16 / sizeof(A);             // neighbours in 16 bytes
template <class A> constexpr int BESIDE = WIDE<A> == 1 ? 1 : 2;     // neighbouring columns of a thread

__device__ __forceinline__ int row_of(int down, int r) { return down * MICRO + r; }
template <class A, int ACROSS> __device__ __forceinline__ int column_of(int across, int q)
{
  return q / BESIDE<A> * BESIDE<A> * ACROSS + across * BESIDE<A> + q % BESIDE<A>;
}

// Copy N neighbours between registers and a tile, as widely as 16 bytes allow.
template <int N, class A> __device__ __forceinline__ void copy_run(A* to, const A* from)
{
  constexpr int AT_ONCE = N < WIDE<A> ? N : WIDE<A>;
#pragma unroll
  for (int v = 0; v < N; v += AT_ONCE)
    *reinterpret_cast<Pack<A, AT_ONCE>*>(to + v) = *reinterpret_cast<const Pack<A, AT_ONCE>*>(from + v);
}

template <class A> __device__ __forceinline__ void clear_sums(A (&sums)[MICRO][MICRO])
{
#pragma unroll
  for (int r = 0; r < MICRO; ++r)
#pragma unroll
    for (int q = 0; q < MICRO; ++q) sums[r][q] = number<A>(0, 0);
}

// totals += sums; sums = 0: long sums are formed part by part
template <class A> __device__ __forceinline__ void close_sums(A (&totals)[MICRO][MICRO], A (&sums)[MICRO][MICRO])
{
#pragma unroll
  for (int r = 0; r < MICRO; ++r)
#pragma unroll
    for (int q = 0; q < MICRO; ++q) totals[r][q] = add(totals[r][q], sums[r][q]);
  clear_sums(sums);
}

// sums[r][q] += Σ_k left[k][row_of(r)] * right[k][column_of(q)] for `count` rows of the tiles
template <int ACROSS, class A, int L, int R>
__device__ __forceinline__ void multiply_tiles(
    A (&sums)[MICRO][MICRO], const A (*left)[L], const A (*right)[R], int count, int down, int across)
{
  static_assert(L % WIDE<A> == 0 && R % BESIDE<A> == 0, "rows of a tile keep their alignment");
#pragma unroll 4
  for (int k = 0; k < count; ++k) {
    __align__(16) A rows[MICRO], columns[MICRO];
    copy_run<MICRO>(rows, &left[k][row_of(down, 0)]);
#pragma unroll
    for (int q = 0; q < MICRO; q += BESIDE<A>)
      copy_run<BESIDE<A>>(columns + q, &right[k][column_of<A, ACROSS>(across, q)]);
#pragma unroll
    for (int r = 0; r < MICRO; ++r)
#pragma unroll
      for (int q = 0; q < MICRO; ++q) sums[r][q] = multiply_add(rows[r], columns[q], sums[r][q]);
  }
}
