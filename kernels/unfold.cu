// The pixels under every window, one after the other, as they are:
//
//     u[p,m,n,i,j] = x[p, rows[i*rs + m*rd], columns[j*cs + n*cd]]
//
// x (planes, H, W), u (planes, kh, kw, H_out, W_out), of any strides (counted in elements).  An index of
// -1 in `rows` or `columns` stands for `cval`.  T is an unsigned integer of the elements' size (a pair of
// doubles for 16 bytes): nothing is computed, so bits are copied as they are.
//
// The result is the traffic: kh*kw elements for each one read.  So a block reads the pixels under its
// windows once, into a tile in shared memory, and each thread writes V neighbouring outputs of one row at
// a time, 16 bytes, tap after tap.  Windows too large for shared memory are walked in chunks of taps.
#include "tile.cuh"

// grid: one block per plane, tile row and tile column; threads lie in rows of `lanes`
// dynamic shared memory: tile rows * V * pitch elements
template <class T>
__global__ void __launch_bounds__(THREADS, 5)
unfold(
    const T* __restrict__ x, int x_runs, long long x_base, long long x_plane, long long x_row, long long x_column,
    T* __restrict__ u, int u_runs,
    long long u_base, long long u_plane, long long u_m, long long u_n, long long u_row, long long u_column,
    const long long* __restrict__ rows, int row_entries, int rs, int rd,
    const long long* __restrict__ columns, int column_entries, int cs, int cd, int dense,
    int kh, int kw, int height, int width, int lanes, int row_taps, int column_taps, int pitch, T cval)
{
  constexpr int V = WIDTH<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  T* tile = reinterpret_cast<T*>(shared);

  const int lines = THREADS / lanes;
  unsigned block = blockIdx.x;
  const unsigned across = (width - 1) / (lanes * V) + 1, down = (height - 1) / lines + 1;
  const int j0 = block % across * (lanes * V);  block /= across;
  const int i0 = block % down * lines;          block /= down;
  const long long plane = block;

  const int lane = threadIdx.x % lanes, line = threadIdx.x / lanes;
  const int i = i0 + line, j = j0 + lane * V;
  const int outputs = i < height ? max(0, min(V, width - j)) : 0;
  const Image<T> image = {x + x_base + plane * x_plane, 0, x_row, x_column, x_runs != 0};
  T* to = u + u_base + plane * u_plane + i * u_row + j * u_column;

  for (int m0 = 0; m0 < kh; m0 += row_taps)
    for (int n0 = 0; n0 < kw; n0 += column_taps) {
      const int mc = min(row_taps, kh - m0), nc = min(column_taps, kw - n0);
      const Tile t = {i0 * rs + m0 * rd, j0 * cs + n0 * cd, (lines - 1) * rs + (mc - 1) * rd + 1,
                      (lanes * V - 1) * cs + (nc - 1) * cd + 1, pitch};
      __syncthreads();  // the previous tile is read
      load_tile<V, V == 16 ? 1 : 2>(tile, t, 1, image, {rows, row_entries}, {columns, column_entries}, dense != 0, cval);
      __syncthreads();
      for (int m = 0; m < mc; ++m) {
        const T* from = tile + (line * rs + m * rd) * V * pitch;
#pragma unroll 2
        for (int n = 0; n < nc; ++n) {
          T pixels[V];
#pragma unroll
          for (int v = 0; v < V; ++v) pixels[v] = from[place<V>((lane * V + v) * cs + n * cd, pitch)];
          store_run(to + (m0 + m) * u_m + (n0 + n) * u_n, u_column, u_runs != 0, pixels, outputs);
        }
      }
    }
}
