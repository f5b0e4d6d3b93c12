// One kernel per location, shared by the planes of a batch:
//
//     y[g,p,i,j] = Σ_{m,n} k[m,n,g,i,j] x[g,p, rows[i*rs + m*rd], columns[j*cs + n*cd]]
//
// x (groups, planes, H, W), k (kh, kw, groups, H_out, W_out), y (groups, planes, H_out, W_out), all
// of any strides (counted in elements).  Planes of a group share its kernels.  An index of -1 in
// `rows` or `columns` stands for the value `cval`: this is all that the kernel knows of boundaries.
//
// The kernel tensor is the traffic: kh*kw values per pixel, used once per plane.  So a block takes
// LX*V columns, THREADS/LX rows and up to P planes; each thread owns V neighbouring outputs of one
// row in all P planes, reads every kernel value that it needs exactly once, V at a time, TAPS taps in
// flight, and takes the pixels from a tile in shared memory.  Windows too large for shared memory are
// walked in chunks of taps.
#include "tile.cuh"

template <int P> constexpr int TAPS_IN_FLIGHT = P == 1 ? 8 : 4;  // per thread, V values for each
template <int P> constexpr int BLOCKS = P == 16 ? 2 : 3;         // per multiprocessor, at least: bounds the registers

// As for an image: V neighbours along the last axis may be read at once if `runs`.
template <class T> struct Kernels { const T* data; long long m, n, column; bool runs, conj; };

// Read V neighbouring kernel values for each of `count` taps; what lies outside the output is 0.
template <class T, class A, int V, int TAPS>
__device__ __forceinline__ void load_taps(A (&values)[TAPS][V], int count, const Kernels<T>& k, const T* from, int outputs)
{
  if (k.runs && outputs == V) {
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
      if (u < count) {
        const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(from + u * k.n);
#pragma unroll
        for (int v = 0; v < V; ++v) values[u][v] = widen(pack.v[v]);
      }
  } else {
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
#pragma unroll
      for (int v = 0; v < V; ++v)
        values[u][v] = u < count && v < outputs ? widen(from[u * k.n + v * k.column]) : number<A>(0, 0);
  }
  if (k.conj) {
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
#pragma unroll
      for (int v = 0; v < V; ++v) values[u][v] = conjugate(values[u][v]);
  }
}

// grid: one block per group, tile row, tile column and P planes (the planes fastest)
// dynamic shared memory: min(P, planes) * tile rows * V * pitch accumulators
template <class T, int P, int LX>
__global__ void __launch_bounds__(THREADS, BLOCKS<P>)
correlate(
    const T* __restrict__ x, int x_runs,
    long long x_base, long long x_group, long long x_plane, long long x_row, long long x_column,
    const T* __restrict__ k, int k_runs, int conj,
    long long k_base, long long k_group, long long k_m, long long k_n, long long k_row, long long k_column,
    T* __restrict__ y, int y_runs,
    long long y_base, long long y_group, long long y_plane, long long y_row, long long y_column,
    const long long* __restrict__ rows, int row_entries, int rs, int rd,
    const long long* __restrict__ columns, int column_entries, int cs, int cd, int dense,
    int kh, int kw, int height, int width, int planes, int row_taps, int column_taps, int pitch,
    double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  constexpr int V = WIDTH<A>, TAPS = TAPS_IN_FLIGHT<P>, LY = THREADS / LX;
  extern __shared__ __align__(16) unsigned char shared[];
  A* tile = reinterpret_cast<A*>(shared);

  unsigned block = blockIdx.x;
  const unsigned plane_tiles = (planes - 1) / P + 1, across = (width - 1) / (LX * V) + 1, down = (height - 1) / LY + 1;
  const int plane0 = block % plane_tiles * P;  block /= plane_tiles;
  const int j0 = block % across * (LX * V);    block /= across;
  const int i0 = block % down * LY;            block /= down;
  const long long group = block;

  const int active = min(P, planes - plane0);
  const int lane = threadIdx.x % LX, line = threadIdx.x / LX;
  const int i = i0 + line, j = j0 + lane * V;
  const int outputs = i < height ? max(0, min(V, width - j)) : 0;
  const Image<T> image = {x + x_base + group * x_group + plane0 * x_plane, x_plane, x_row, x_column, x_runs != 0};
  const Kernels<T> kernels = {k + k_base + group * k_group + i * k_row + j * k_column, k_m, k_n, k_column,
                              k_runs != 0, conj != 0};

  A totals[P][V], sums[P][V];
#pragma unroll
  for (int p = 0; p < P; ++p)
#pragma unroll
    for (int v = 0; v < V; ++v) totals[p][v] = sums[p][v] = number<A>(0, 0);

  for (int m0 = 0; m0 < kh; m0 += row_taps)
    for (int n0 = 0; n0 < kw; n0 += column_taps) {
      const int mc = min(row_taps, kh - m0), nc = min(column_taps, kw - n0);
      const Tile t = {i0 * rs + m0 * rd, j0 * cs + n0 * cd, (LY - 1) * rs + (mc - 1) * rd + 1,
                      (LX * V - 1) * cs + (nc - 1) * cd + 1, pitch};
      __syncthreads();  // the previous tile is read
      load_tile<V>(tile, t, active, image, {rows, row_entries}, {columns, column_entries}, dense != 0,
                            number<A>(cval_re, cval_im));
      __syncthreads();
      for (int m = 0; m < mc; ++m) {
#pragma unroll 1
        for (int n = 0; n < nc; n += TAPS) {
          const int count = min(TAPS, nc - n);
          A values[TAPS][V];
          load_taps(values, count, kernels, kernels.data + (m0 + m) * k_m + (n0 + n) * k_n, outputs);
          const A* first = tile + (line * rs + m * rd) * V * pitch;
#pragma unroll
          for (int p = 0; p < P; ++p)
            if (p < active)
              for_each_pixel<V, TAPS>(first + p * t.rows * V * pitch, pitch, lane * V * cs + n * cd, cs, cd, count,
                                      [&](int u, int v, A pixel) { sums[p][v] = multiply_add(values[u][v], pixel, sums[p][v]); });
        }
        if (n0 + nc == kw) {  // a row of taps is complete: long windows are summed row by row
#pragma unroll
          for (int p = 0; p < P; ++p)
#pragma unroll
            for (int v = 0; v < V; ++v) {
              totals[p][v] = add(totals[p][v], sums[p][v]);
              sums[p][v] = number<A>(0, 0);
            }
        }
      }
    }

  T* to = y + y_base + group * y_group + plane0 * y_plane + i * y_row + j * y_column;
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (p < active) store_run(to + p * y_plane, y_column, y_runs != 0, totals[p], outputs);
}
