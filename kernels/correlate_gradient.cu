// The gradient of `correlate` in its kernels, for a gradient g that comes in:
//
//     d[m,n,…,i,j] = Σ conj(g[…,i,j]) x[…, rows[i*rs + m*rd], columns[j*cs + n*cd]]
//
// the sum running over what shares a kernel.  x (…, H, W), g (…, H_out, W_out), d as below, all of any
// strides (counted in elements).  An index of -1 in `rows` or `columns` stands for the value `cval`.
//
// `correlate_gradient`, for one kernel per pixel: x (groups, planes, H, W), g (groups, planes, H_out,
// W_out), d (kh, kw, groups, H_out, W_out), summed over the planes, which lie along two axes.  d is the traffic, written once:
// `correlate` turned round.  Each thread owns V neighbouring outputs of one row in P planes, keeps their g,
// takes the pixels from a tile in shared memory and writes V sums at a time, TAPS taps together.  Further
// planes are added to what the thread has written, which is still in the second-level cache.  Where there
// are few blocks, each takes some of the rows of taps.
//
// `correlate_gradient_sum`, for kernels that pixels share: d (kh, kw, groups, 1 or H_out), summed over the
// columns, the planes and, unless each row has its own kernels, the rows.  A block sums a part of them for
// some neighbouring taps: tile after tile of the image, each thread in sums of its own, which are added
// up in shared memory in the end.  Its result is a partial sum, parts (parts, kh, kw, groups, rows) are
// added up afterwards.
#include "tile.cuh"

template <class A> constexpr int TAPS = sizeof(A) == 16 ? 2 : 4;  // neighbouring taps, V sums for each
template <int P> constexpr int BLOCKS = P == 16 ? 2 : 3;          // per multiprocessor, at least: bounds the registers
constexpr int ROW_TAPS = 2, COLUMN_TAPS = 8;                      // of a block that sums over pixels
constexpr int STRETCH = 64;                                       // tiles that a thread sums before the next ones

// A plane among those that are summed, which lie along two axes.
struct Plane { int outer, inner; };
__device__ __forceinline__ Plane plane_at(int plane, int inside) { return {plane / inside, plane % inside}; }

// Read up to V neighbouring values; what lies outside is 0.
template <class T, class A, int V>
__device__ __forceinline__ void load_run(A (&values)[V], const T* from, long long step, bool runs, int outputs)
{
  if (runs && outputs == V) {
    const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(from);
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = widen(pack.v[v]);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = v < outputs ? widen(from[v * step]) : number<A>(0, 0);
  }
}

// The tile under `lines` rows of outputs from row i on, and `columns` of them from column j on, for some
// neighbouring taps; rs … cd are the steps of the index tables.
__device__ __forceinline__ Tile tile_under(
    int i, int lines, int j, int columns, int m, int row_taps, int n, int column_taps, int rs, int rd, int cs, int cd, int pitch)
{
  return {i * rs + m * rd, j * cs + n * cd, (lines - 1) * rs + (row_taps - 1) * rd + 1,
          (columns - 1) * cs + (column_taps - 1) * cd + 1, pitch};
}

// grid: one block per group, tile row, tile column and `rows_each` rows of taps (these fastest); threads
// lie in rows of `lanes`
// dynamic shared memory: min(P, planes) * tile rows * V * pitch accumulators
template <class T, int P>
__global__ void __launch_bounds__(THREADS, BLOCKS<P>)
correlate_gradient(
    const T* __restrict__ x, int x_runs,
    long long x_base, long long x_group, long long x_volume, long long x_plane, long long x_row, long long x_column,
    const T* __restrict__ g, int g_runs,
    long long g_base, long long g_group, long long g_volume, long long g_plane, long long g_row, long long g_column,
    T* __restrict__ d, int d_runs, int add_up,
    long long d_base, long long d_group, long long d_m, long long d_n, long long d_row, long long d_column,
    const long long* __restrict__ rows, int row_entries, int rs, int rd,
    const long long* __restrict__ columns, int column_entries, int cs, int cd, int dense,
    int kh, int kw, int height, int width, int planes, int planes_inside, int lanes, int rows_each, int row_taps, int column_taps, int pitch,
    double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  constexpr int V = WIDTH<A>;
  extern __shared__ __align__(16) unsigned char shared[];
  A* tile = reinterpret_cast<A*>(shared);

  const int lines = THREADS / lanes;
  unsigned block = blockIdx.x;
  const unsigned row_parts = (kh - 1) / rows_each + 1, across = (width - 1) / (lanes * V) + 1, down = (height - 1) / lines + 1;
  const int first_tap = block % row_parts * rows_each;  block /= row_parts;
  const int j0 = block % across * (lanes * V);          block /= across;
  const int i0 = block % down * lines;                  block /= down;
  const long long group = block;

  const int last_tap = min(kh, first_tap + rows_each);
  const bool neighbours = cs == 1 && cd == 1;
  const int lane = threadIdx.x % lanes, line = threadIdx.x / lanes;
  const int i = i0 + line, j = j0 + lane * V;
  const int outputs = i < height ? max(0, min(V, width - j)) : 0;
  const Image<T> image = {x + x_base + group * x_group, x_plane, x_row, x_column, x_runs != 0};
  const T* from = g + g_base + group * g_group + i * g_row + j * g_column;
  T* to = d + d_base + group * d_group + i * d_row + j * d_column;

  for (int plane0 = 0; plane0 < planes; plane0 += P) {
    const int active = min(P, planes - plane0);
    A factors[P][V];
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const Plane plane = plane_at(plane0 + p, planes_inside);
      load_run(factors[p], from + (plane.outer * g_volume + plane.inner * g_plane), g_column, g_runs != 0, p < active ? outputs : 0);
#pragma unroll
      for (int v = 0; v < V; ++v) factors[p][v] = conjugate(factors[p][v]);
    }
    for (int m0 = first_tap; m0 < last_tap; m0 += row_taps)
      for (int n0 = 0; n0 < kw; n0 += column_taps) {
        const int mc = min(row_taps, last_tap - m0), nc = min(column_taps, kw - n0);
        const Tile t = tile_under(i0, lines, j0, lanes * V, m0, mc, n0, nc, rs, rd, cs, cd, pitch);
        __syncthreads();  // the previous tile is read
        load_planes<V, 4>(tile, t, active, image, {rows, row_entries}, {columns, column_entries}, dense != 0,
                          number<A>(cval_re, cval_im), [&](int p) {
                            const Plane plane = plane_at(plane0 + p, planes_inside);
                            return image.data + (plane.outer * x_volume + plane.inner * x_plane);
                          });
        __syncthreads();
        for (int m = 0; m < mc; ++m)
#pragma unroll 1
          for (int n = 0; n < nc;) {
            const int count = neighbours ? min(TAPS<A>, nc - n) : 1, column = lane * V * cs + n * cd;
            A sums[TAPS<A>][V];
#pragma unroll
            for (int u = 0; u < TAPS<A>; ++u)
#pragma unroll
              for (int v = 0; v < V; ++v) sums[u][v] = number<A>(0, 0);
            const A* first = tile + (line * rs + m * rd) * V * pitch;
#pragma unroll
            for (int p = 0; p < P; ++p)
              if (p < active) {
                const A* from_plane = first + p * t.rows * V * pitch;
                const auto product = [&](int u, int v, A pixel) { sums[u][v] = multiply_add(factors[p][v], pixel, sums[u][v]); };
                if (neighbours)
                  for_neighbours<V, TAPS<A>>(from_plane, pitch, column, count, product);
                else
                  for_each_pixel<V, 1>(from_plane, pitch, column, cs, cd, 1, product);
              }
            T* place = to + (m0 + m) * d_m + (n0 + n) * d_n;
#pragma unroll
            for (int u = 0; u < TAPS<A>; ++u, place += d_n)
              if (u < count) {
                if (plane0 > 0 || add_up) {
                  A old[V];
                  load_run(old, place, d_column, d_runs != 0, outputs);
#pragma unroll
                  for (int v = 0; v < V; ++v) sums[u][v] = add(old[v], sums[u][v]);
                }
                store_run(place, d_column, d_runs != 0, sums[u], outputs);
              }
            n += count;
          }
      }
  }
}

// Add up `COUNT` sums over the threads of a block; thread e returns the e-th.
template <int COUNT, class A> __device__ __forceinline__ A over_threads(A* shared, const A (&sums)[COUNT])
{
  __syncthreads();  // shared memory is free
#pragma unroll
  for (int e = 0; e < COUNT; ++e) shared[e * THREADS + threadIdx.x] = sums[e];
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    for (int at = threadIdx.x; at < COUNT * half; at += THREADS) {
      A* sum = shared + at / half * THREADS + at % half;
      *sum = add(*sum, sum[half]);
    }
  }
  __syncthreads();
  return threadIdx.x < COUNT ? shared[threadIdx.x * THREADS] : number<A>(0, 0);
}

// grid: one block per group, row with kernels of its own, part of the sum, and ROW_TAPS * COLUMN_TAPS taps
// (these fastest)
// dynamic shared memory: tile rows * V * pitch accumulators, and at least one for each thread and tap
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
correlate_gradient_sum(
    const T* __restrict__ x, int x_runs,
    long long x_base, long long x_group, long long x_volume, long long x_plane, long long x_row, long long x_column,
    const T* __restrict__ g, int g_runs,
    long long g_base, long long g_group, long long g_volume, long long g_plane, long long g_row, long long g_column,
    accumulator<T>* __restrict__ parts, long long part_base, long long part_step, long long part_m, long long part_n,
    long long part_group, long long part_row,
    const long long* __restrict__ rows, int row_entries, int rs, int rd,
    const long long* __restrict__ columns, int column_entries, int cs, int cd, int dense,
    int kh, int kw, int height, int width, int planes, int planes_inside, int own_rows, int splits, int lanes, int row_taps, int column_taps, int pitch,
    double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  constexpr int V = WIDTH<A>;
  extern __shared__ __align__(16) unsigned char shared[];
  A* tile = reinterpret_cast<A*>(shared);

  const int lines = THREADS / lanes;
  unsigned block = blockIdx.x;
  const unsigned tap_columns = (kw - 1) / column_taps + 1, tap_rows = (kh - 1) / row_taps + 1;
  const int n0 = block % tap_columns * column_taps;  block /= tap_columns;
  const int m0 = block % tap_rows * row_taps;        block /= tap_rows;
  const int part = block % splits;                   block /= splits;
  const int own_row = block % own_rows;              block /= own_rows;
  const long long group = block;

  const int mc = min(row_taps, kh - m0), nc = min(column_taps, kw - n0);
  const int across = (width - 1) / (lanes * V) + 1, down = own_rows > 1 ? 1 : (height - 1) / lines + 1;
  const int tiles = planes * down * across, each = (tiles - 1) / splits + 1;
  const int lane = threadIdx.x % lanes, line = threadIdx.x / lanes;
  const T* pixels = x + x_base + group * x_group;

  A totals[ROW_TAPS * COLUMN_TAPS], sums[ROW_TAPS * COLUMN_TAPS];
#pragma unroll
  for (int e = 0; e < ROW_TAPS * COLUMN_TAPS; ++e) totals[e] = sums[e] = number<A>(0, 0);

  for (int at = part * each; at < min(tiles, (part + 1) * each); ++at) {
    const int j0 = at % across * (lanes * V), i0 = own_row + at / across % down * lines;
    const Plane plane = plane_at(at / across / down, planes_inside);
    const int i = i0 + line, j = j0 + lane * V;
    const int outputs = i < height ? max(0, min(V, width - j)) : 0;
    const Image<T> image = {pixels + plane.outer * x_volume + plane.inner * x_plane, 0, x_row, x_column, x_runs != 0};
    const T* from = g + g_base + group * g_group + plane.outer * g_volume + plane.inner * g_plane + i * g_row + j * g_column;
    const Tile t = tile_under(i0, lines, j0, lanes * V, m0, mc, n0, nc, rs, rd, cs, cd, pitch);
    __syncthreads();  // the previous tile is read
    load_tile<V>(tile, t, 1, image, {rows, row_entries}, {columns, column_entries}, dense != 0, number<A>(cval_re, cval_im));
    A factors[V];
    load_run(factors, from, g_column, g_runs != 0, outputs);
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) factors[v] = conjugate(factors[v]);
#pragma unroll
    for (int m = 0; m < ROW_TAPS; ++m)
      if (m < mc)
        for_each_pixel<V, COLUMN_TAPS>(tile + (line * rs + m * rd) * V * pitch, pitch, lane * V * cs, cs, cd, nc,
                                       [&](int u, int v, A pixel) {
          if (v < outputs) sums[m * COLUMN_TAPS + u] = multiply_add(factors[v], pixel, sums[m * COLUMN_TAPS + u]);
        });
    if ((at + 1) % STRETCH == 0) {
#pragma unroll
      for (int e = 0; e < ROW_TAPS * COLUMN_TAPS; ++e) {
        totals[e] = add(totals[e], sums[e]);
        sums[e] = number<A>(0, 0);
      }
    }
  }
#pragma unroll
  for (int e = 0; e < ROW_TAPS * COLUMN_TAPS; ++e) totals[e] = add(totals[e], sums[e]);

  const A sum = over_threads(tile, totals);
  const int m = threadIdx.x / COLUMN_TAPS, n = threadIdx.x % COLUMN_TAPS;
  if (m < mc && n < nc)
    parts[part_base + part * part_step + (m0 + m) * part_m + (n0 + n) * part_n + group * part_group + own_row * part_row] = sum;
}
