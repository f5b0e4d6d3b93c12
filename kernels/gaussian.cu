// A Gaussian at every pixel, as wide as a map says:
//
//     y[g,i,j] = Σ_{m,n} k[m,n,g,i,j] x[g, rows[i + r + m], columns[j + r' + n]] / Σ_{m,n} k[m,n,g,i,j]
//
// x (groups, H, W), y (groups, H_out, W_out), maps of σ and of angles (groups, H_out, W_out), all of any strides
// (counted in elements; 0 where maps broadcast); r and r' are the largest radii that the index tables
// leave room for.  An index of -1 stands for `cval`.  k is in gaussian.cuh.
//
// Arithmetic is the traffic: the kernels are never stored, and the image comes from a tile in shared memory.
// gaussian_window.cuh says how the symmetries of k save half of the multiplications, and neighbours most of the loads.
#include "gaussian_sums.cuh"

// Blocks per multiprocessor, at least: bounds the registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <class T, bool TURNED> constexpr int BLOCKS = 3;
#else
template <class T, bool TURNED> constexpr int BLOCKS = TURNED || sizeof(T) == 8 ? 3 : 4;
#endif

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

  const Place at = place_of(blockIdx.x, LANES * V, height, width);
  const int j = at.column + threadIdx.x % LANES * V, i = at.row + threadIdx.x / LANES;
  const int outputs = i < height ? max(0, min(V, width - j)) : 0;
  const Widths widths = {map_of(s, s_wide, s_base + at.group * s_group, s_row, s_column),
                         map_of(t, t_wide, t_base + at.group * t_group, t_row, t_column),
                         map_of(a, a_wide, a_base + at.group * a_group, a_row, a_column), truncate, row_radius, column_radius};
  typename SumsOf<A, V, 1, TURNED>::type sums;
  const View<T, A> from = {{x + x_base + at.group * x_group, 0, x_row, x_column, x_runs != 0}, {rows, row_entries}, {columns, column_entries},
                           at.row + row_radius, at.column + column_room, (A)cval};
  sum_window<V>(sums, widths, i, j, outputs, from, scratch, reinterpret_cast<A*>(shared), held);

  A values[V];
#pragma unroll
  for (int v = 0; v < V; ++v) values[v] = sums.result(0, v);
  store_run(y + y_base + at.group * y_group + i * y_row + j * y_column, y_column, y_runs != 0, values, outputs);
}
