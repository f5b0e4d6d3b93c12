// The derivatives of a loss in the widths and the angles of Gaussians, one per output, radii held fixed:
//
//     d[0,g,i,j] = g_y ∂y/∂σ_r = g_y (E[u² x] - E[u²] E[x]) / σ_r³      with E[…] = Σ_{m,n} k … / Σ_{m,n} k
//     d[1,g,i,j] = g_y ∂y/∂σ_c = g_y (E[v² x] - E[v²] E[x]) / σ_c³
//     d[2,g,i,j] = g_y ∂y/∂θ   = g_y (E[uv x] - E[uv] E[x]) (1/σ_c² - 1/σ_r²)     if kernels are turned
//
// and 0 where a width is 0.  x, y, the maps and tables are as in gaussian.cu, which tells how the window is walked;
// g_y is of y's shape, d (2 or 3, groups, H_out, W_out) holds accumulators.
#include "gaussian_sums.cuh"

// ∂/∂σ_r and the others of one output, from what its sums are.
template <class A, int V>
__device__ __forceinline__ void derivatives(A (&found)[2], const AlignedSums<A, V, 2>& sums, int v, double s, double t)
{
  found[0] = s == 0 ? 0 : sums.result(0, v) * (A)fmin(1 / (s * s * s), LARGEST);
  found[1] = t == 0 ? 0 : sums.result(1, v) * (A)fmin(1 / (t * t * t), LARGEST);
}

template <class A, int V>
__device__ __forceinline__ void derivatives(A (&found)[3], const TurnedSums<A, V, 4>& sums, int v, double s, double t)
{
  const double scale = 1 / HALF_LOG2_E;
  found[0] = s == 0 ? 0 : sums.result(1, v) * (A)(scale / s);
  found[1] = t == 0 ? 0 : sums.result(2, v) * (A)(scale / t);
  found[2] = s == 0 ? 0 : sums.result(3, v) * (A)(scale * (s / t - t / s));
}

// Blocks per multiprocessor, at least: bounds the registers.
constexpr int BLOCKS = 2;

// grid: one block per group, tile row and tile column (the columns fastest)
// dynamic shared memory: `held` accumulators
template <class T, bool TURNED>
__global__ void __launch_bounds__(THREADS, BLOCKS)
gaussian_sigma_gradient(
    const T* __restrict__ x, int x_runs, long long x_base, long long x_group, long long x_row, long long x_column,
    const T* __restrict__ g, int, long long g_base, long long g_group, long long g_row, long long g_column,
    const void* __restrict__ s, int s_wide, long long s_base, long long s_group, long long s_row, long long s_column,
    const void* __restrict__ t, int t_wide, long long t_base, long long t_group, long long t_row, long long t_column,
    const void* __restrict__ a, int a_wide, long long a_base, long long a_group, long long a_row, long long a_column,
    accumulator<T>* __restrict__ d, long long d_base, long long d_which, long long d_group, long long d_row, long long d_column,
    const long long* __restrict__ rows, int row_entries, const long long* __restrict__ columns, int column_entries,
    int row_radius, int column_radius, int column_room, int height, int width, int held, double truncate, double cval)
{
  typedef accumulator<T> A;
  constexpr int V = WIDTH<A>, K = TURNED ? 4 : 2, COUNT = TURNED ? 3 : 2;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ int scratch[THREADS];

  const Place at = place_of(blockIdx.x, LANES * V, height, width);
  const int j = at.column + threadIdx.x % LANES * V, i = at.row + threadIdx.x / LANES;
  const int outputs = i < height ? max(0, min(V, width - j)) : 0;
  const Widths widths = {map_of(s, s_wide, s_base + at.group * s_group, s_row, s_column),
                         map_of(t, t_wide, t_base + at.group * t_group, t_row, t_column),
                         map_of(a, a_wide, a_base + at.group * a_group, a_row, a_column), truncate, row_radius, column_radius};
  typename SumsOf<A, V, K, TURNED>::type sums;
  const View<T, A> from = {{x + x_base + at.group * x_group, 0, x_row, x_column, x_runs != 0}, {rows, row_entries}, {columns, column_entries},
                           at.row + row_radius, at.column + column_room, (A)cval};
  sum_window<V>(sums, widths, i, j, outputs, from, scratch, reinterpret_cast<A*>(shared), held);

  const T* given = g + (g_base + at.group * g_group + i * g_row + j * g_column);
  A* to = d + (d_base + at.group * d_group + i * d_row + j * d_column);
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (v < outputs) {
      A found[COUNT];
      derivatives(found, sums, v, widths.rows.at(i, j + v), widths.columns.at(i, j + v));
      const A factor = widen(given[v * g_column]);
#pragma unroll
      for (int k = 0; k < COUNT; ++k) to[k * d_which + v * d_column] = factor * found[k];
    }
}
