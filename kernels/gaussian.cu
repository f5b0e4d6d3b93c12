// A Gaussian at every pixel, as wide as a map says:
//
//     y[g,i,j] = Σ_{m,n} k[m,n,g,i,j] x[g, rows[i + r + m], columns[j + r' + n]] / Σ_{m,n} k[m,n,g,i,j]
//
// x (groups, H, W), y (groups, H_out, W_out), maps of σ and of angles (groups, H_out, W_out), all of any strides
// (counted in elements; 0 where maps broadcast); r and r' are the largest radii that the index tables
// leave room for.  An index of -1 stands for `cval`.  k is in gaussian.cuh.
//
// Arithmetic is the traffic: the kernels are never stored, and the image comes from a tile in shared memory.
// gaussian_window.cuh says how the symmetries of k make three in four multiplications and loads unnecessary.
#include "gaussian_sums.cuh"

// Blocks per multiprocessor, at least: bounds the registers.
template <class T, bool TURNED> constexpr int BLOCKS = TURNED ? 3 : sizeof(T) == 8 ? 2 : 4;

// grid: one block per group, tile row and tile column (the columns fastest)
// dynamic shared memory: `held` accumulators
template <class T, bool TURNED>
__global__ void __launch_bounds__(THREADS, (BLOCKS<T, TURNED>))
gaussian(
    const T* __restrict__ x, int x_runs, long long x_base, long long x_group, long long x_row, long long x_column,
    T* __restrict__ y, int y_runs, long long y_base, long long y_group, long long y_row, long long y_column,
    const void* __restrict__ s, int s_wide, long long s_base, long long s_group, long long s_row, long long s_column,
    const void* __restrict__ t, int t_wide, long long t_base, long long t_group, long long t_row, long long t_column,
    const void* __restrict__ a, int a_wide, long long a_base, long long a_group, long long a_row, long long a_column,
    const long long* __restrict__ rows, int row_entries, const long long* __restrict__ columns, int column_entries,
    int row_radius, int column_radius, int column_room, int height, int width, int held, double truncate, double cval)
{
  typedef accumulator<T> A;
  constexpr int V = WIDTH<A>;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ int scratch[THREADS];

  unsigned block = blockIdx.x;
  const unsigned across = (width - 1) / (LANES * V) + 1, down = (height - 1) / LINES + 1;
  const int j0 = block % across * (LANES * V);  block /= across;
  const int i0 = block % down * LINES;          block /= down;
  const long long group = block;
  const int i = i0 + threadIdx.x / LANES, j = j0 + threadIdx.x % LANES * V;
  const int outputs = i < height ? max(0, min(V, width - j)) : 0;

  const Widths widths = {map_of(s, s_wide, s_base + group * s_group, s_row, s_column),
                         map_of(t, t_wide, t_base + group * t_group, t_row, t_column),
                         map_of(a, a_wide, a_base + group * a_group, a_row, a_column), truncate, row_radius, column_radius};
  typename SumsOf<A, V, 1, TURNED>::type sums;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    sums.shapes[v] = {};
    if (v < outputs) sums.shapes[v].read(widths, i, j + v);
  }
  sums.start();
  const View<T, A> from = {{x + x_base + group * x_group, 0, x_row, x_column, x_runs != 0}, {rows, row_entries}, {columns, column_entries},
                           i0 + row_radius, j0 + column_room, (A)cval};
  walk_window<V>(sums, reinterpret_cast<A*>(shared), held, from, block_maximum(scratch, largest_rows(sums.shapes)),
                 block_maximum(scratch, largest_columns(sums.shapes)));

  A values[V];
#pragma unroll
  for (int v = 0; v < V; ++v) values[v] = sums.result(0, v);
  store_run(y + y_base + group * y_group + i * y_row + j * y_column, y_column, y_runs != 0, values, outputs);
}
