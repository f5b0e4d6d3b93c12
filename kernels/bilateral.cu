// The bilateral filter:
//
//     y[s,c,p] = Σ_q w(p,q) x[s,c,q] / Σ_q w(p,q)
//
// with the weights of bilateral.cuh, q = (rows[i + m], columns[j + n]) under tap (m,n) of p = (i,j).  x
// (samples, C, H, W), g (samples, features, H, W), σ_s and σ_r (samples, H_out, W_out) in double precision,
// y (samples, C, H_out, W_out), all of any strides (counted in elements).  An index of -1 in `rows` or
// `columns` stands for `cval`, in x and in g.
//
// The weights are the work: one power of two for each tap and output, for up to P channels.  A block takes
// `lanes`*V columns and THREADS/lanes rows; each thread owns V neighbouring outputs, and takes x and g from
// tiles in shared memory, TAPS taps of V outputs at a time, so that neighbouring taps share pixels.
// Windows too large for shared memory are walked in chunks of taps, and no block walks further than its
// largest radius.  Guides with too many features for one tap's tile are read where they lie.
#include "bilateral.cuh"
#include "tile.cuh"
#include "window.cuh"

constexpr int TAPS = 4;
constexpr int CHANNELS = 4;  // of a block, P

// The features of a thread's V outputs, in units, kept in shared memory.
template <int V, class R> __device__ __forceinline__ Pack<R, V>& own_feature(R* own, int k)
{
  return reinterpret_cast<Pack<R, V>*>(own)[k * THREADS + threadIdx.x];
}

// The largest radius of a block's threads.
__device__ __forceinline__ int largest(int radius)
{
  __shared__ int radii[THREADS];
  radii[threadIdx.x] = radius;
  for (int step = THREADS / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step) radii[threadIdx.x] = max(radii[threadIdx.x], radii[threadIdx.x + step]);
  }
  __syncthreads();
  return radii[0];
}

// w[u][v] of `count` neighbouring taps u and V neighbouring outputs v; -1 where a tap does not exist.  The
// first one lies (down, across) pixels from the first output.
template <int V, class R>
__device__ __forceinline__ void weigh(
    R (&w)[TAPS][V], const Falloff<R> (&falloffs)[V], R* own, const R* tile, int plane, int features, int pitch,
    int column, int count, int down, int across)
{
#pragma unroll
  for (int u = 0; u < TAPS; ++u)
#pragma unroll
    for (int v = 0; v < V; ++v) w[u][v] = 0;
  for (int k = 0; k < features; ++k) {
    const Pack<R, V> here = own_feature<V>(own, k);
    for_neighbours<V, TAPS>(tile + k * plane, pitch, column, count, [&](int u, int v, R pixel) {
      const R difference = multiply_add(pixel, falloffs[v].unit, -here.v[v]);
      w[u][v] = multiply_add(difference, difference, w[u][v]);
    });
  }
#pragma unroll
  for (int u = 0; u < TAPS; ++u) {
    const R distance = squared_distance<R>(down, across + u);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const bool exists = u < count && max(abs(down), abs(across + u)) <= falloffs[v].radius;
      w[u][v] = exists ? falloffs[v].weight(w[u][v], distance) : (R)-1;
    }
  }
}

// at(k, v) is feature k under output v.
template <int V, class R, class F>
__device__ __forceinline__ void keep_own(R* own, int features, const Falloff<R> (&falloffs)[V], int outputs, F at)
{
  for (int k = 0; k < features; ++k)
#pragma unroll
    for (int v = 0; v < V; ++v) own_feature<V>(own, k).v[v] = v < outputs ? at(k, v) * falloffs[v].unit : (R)0;
}

// How the maps of an output's widths lie.
struct Map { const double* data; long long row, column; };

// The falloffs of a thread's outputs, no taps at all past the last; returns their largest radius.
template <int V, class R>
__device__ __forceinline__ int find_falloffs(
    Falloff<R> (&falloffs)[V], const Map& spatial, const Map& range, int i, int j, int outputs, double truncate, int most)
{
  int reach = -1;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    falloffs[v] = {0, 0, 0, -1};
    if (v < outputs) {
      const double width = range.data[i * range.row + (j + v) * range.column];
      falloffs[v] = scaled(falloff<R>(spatial.data[i * spatial.row + (j + v) * spatial.column], width, truncate, most), width);
    }
    reach = max(reach, falloffs[v].radius);
  }
  return reach;
}

// Weighted sums of P channels and V outputs, and of their weights; long windows are summed row by row.
template <class A, class R, int P, int V> struct Sums {
  A values[P][V];
  R weights[V];

  __device__ __forceinline__ void clear()
  {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      weights[v] = 0;
#pragma unroll
      for (int p = 0; p < P; ++p) values[p][v] = number<A>(0, 0);
    }
  }
  __device__ __forceinline__ void take(Sums& other)
  {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      weights[v] += other.weights[v];
#pragma unroll
      for (int p = 0; p < P; ++p) values[p][v] = add(values[p][v], other.values[p][v]);
    }
    other.clear();
  }
};

// Add `count` neighbouring taps of `active` channels.
template <class A, class R, int P, int V>
__device__ __forceinline__ void add_taps(
    Sums<A, R, P, V>& sums, const R (&w)[TAPS][V], const A* tile, int plane, int pitch, int column, int count, int active)
{
#pragma unroll
  for (int u = 0; u < TAPS; ++u)
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (!(w[u][v] < 0)) sums.weights[v] += w[u][v];
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (p < active)
      for_neighbours<V, TAPS>(tile + p * plane, pitch, column, count, [&](int u, int v, A pixel) {
        if (!(w[u][v] < 0)) sums.values[p][v] = add_weighted(sums.values[p][v], w[u][v], pixel);
      });
}

// grid: one block per sample, tile row, tile column and P channels (the channels fastest)
// dynamic shared memory: tiles of min(P, channels) channels (none if `same`) and of all features, and
// features * THREADS * V of the threads' own
template <class T>
__global__ void __launch_bounds__(THREADS, 3)
bilateral(
    const T* __restrict__ x, int x_runs,
    long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const guide_of<T>* __restrict__ g, int g_runs,
    long long g_base, long long g_sample, long long g_feature, long long g_row, long long g_column,
    const double* __restrict__ s, long long s_base, long long s_sample, long long s_row, long long s_column,
    const double* __restrict__ r, long long r_base, long long r_sample, long long r_row, long long r_column,
    T* __restrict__ y, int y_runs,
    long long y_base, long long y_sample, long long y_channel, long long y_row, long long y_column,
    const long long* __restrict__ rows, int row_entries, const long long* __restrict__ columns, int column_entries,
    int row_radius, int column_radius, int height, int width, int channels, int features, int same,
    int lanes, int row_taps, int column_taps, int pitch, double truncate, double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  typedef weight_of<T> R;
  constexpr int V = WIDTH<A>, P = CHANNELS;
  extern __shared__ __align__(16) unsigned char shared[];

  unsigned block = blockIdx.x;
  const int lines = THREADS / lanes;
  const unsigned parts = (channels - 1) / P + 1, wide = (width - 1) / (lanes * V) + 1, high = (height - 1) / lines + 1;
  const int c0 = block % parts * P;           block /= parts;
  const int j0 = block % wide * (lanes * V);  block /= wide;
  const int i0 = block % high * lines;        block /= high;
  const long long sample = block;

  const int active = min(P, channels - c0), lane = threadIdx.x % lanes, line = threadIdx.x / lanes;
  const int i = i0 + line, j = j0 + lane * V, outputs = i < height ? max(0, min(V, width - j)) : 0;
  Falloff<R> falloffs[V];
  const int reach = find_falloffs(
      falloffs, {s + s_base + sample * s_sample, s_row, s_column}, {r + r_base + sample * r_sample, r_row, r_column}, i, j,
      outputs, truncate, max(row_radius, column_radius));
  const int most = largest(reach), up = min(most, row_radius), left = min(most, column_radius);

  A* image_tile = reinterpret_cast<A*>(shared);
  R* own = reinterpret_cast<R*>(image_tile + (same ? 0 : min(P, channels)) * (lines + row_taps - 1) * V * pitch);
  R* guide_tile = own + features * THREADS * V;
  const Image<T> image = {x + x_base + sample * x_sample + c0 * x_channel, x_channel, x_row, x_column, x_runs != 0};
  const Image<guide_of<T>> likeness = {g + g_base + sample * g_sample, g_feature, g_row, g_column, g_runs != 0};
  const bool whole = 2 * up < row_taps && 2 * left < column_taps;  // one tile has all taps
  if (!whole)
    keep_own(own, features, falloffs, outputs, [&](int k, int v) {
      return widen(likeness.data[k * g_feature + rows[i + row_radius] * g_row + columns[j + v + column_radius] * g_column]);
    });

  Sums<A, R, P, V> totals, sums;
  totals.clear();
  sums.clear();
  for (int m0 = -up; m0 <= up; m0 += row_taps)
    for (int n0 = -left; n0 <= left; n0 += column_taps) {
      const int mc = min(row_taps, up + 1 - m0), nc = min(column_taps, left + 1 - n0);
      const Tile t = {i0 + row_radius + m0, j0 + column_radius + n0, lines + mc - 1, lanes * V + nc - 1, pitch};
      const int plane = t.rows * V * pitch;
      const A* pixels = same ? reinterpret_cast<const A*>(guide_tile + c0 * plane) : image_tile;
      __syncthreads();  // the previous tiles are read
      load_tile<V>(guide_tile, t, features, likeness, {rows, row_entries}, {columns, column_entries}, true, (R)cval_re);
      if (!same)
        load_tile<V>(image_tile, t, active, image, {rows, row_entries}, {columns, column_entries}, true,
                     number<A>(cval_re, cval_im));
      __syncthreads();
      if (whole)
        keep_own(own, features, falloffs, outputs, [&](int k, int v) {
          return guide_tile[k * plane + (line + up) * V * pitch + place<V>(lane * V + v + left, pitch)];
        });
      for (int m = 0; m < mc; ++m) {
        const int at = (line + m) * V * pitch;
        if (abs(m0 + m) <= reach) {
#pragma unroll 1
          for (int n = 0; n < nc; n += TAPS) {
            const int count = min(TAPS, nc - n), column = lane * V + n;
            R w[TAPS][V];
            weigh(w, falloffs, own, guide_tile + at, plane, features, pitch, column, count, m0 + m, n0 + n);
            add_taps(sums, w, pixels + at, plane, pitch, column, count, active);
          }
        }
        if (n0 + nc > left) totals.take(sums);  // a row of taps is complete
      }
    }

  T* to = y + y_base + sample * y_sample + c0 * y_channel + i * y_row + j * y_column;
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (p < active) {
      A values[V];
#pragma unroll
      for (int v = 0; v < V; ++v) {
        values[v] = divided(totals.values[p][v], totals.weights[v]);
        if (falloffs[v].keeps())
          values[v] = widen(image.data[p * x_channel + rows[i + row_radius] * x_row + columns[j + v + column_radius] * x_column]);
      }
      store_run(to + p * y_channel, y_column, y_runs != 0, values, outputs);
    }
}

// The same for a guide of many features, which is read where it lies.
//
// grid: one block per sample, THREADS outputs and CHANNELS channels (the channels fastest)
template <class T>
__global__ void __launch_bounds__(THREADS, 4)  // or the compiler spills to fit in more blocks
bilateral_many_features(
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const guide_of<T>* __restrict__ g,
    long long g_base, long long g_sample, long long g_feature, long long g_row, long long g_column,
    const double* __restrict__ s, long long s_base, long long s_sample, long long s_row, long long s_column,
    const double* __restrict__ r, long long r_base, long long r_sample, long long r_row, long long r_column,
    T* __restrict__ y, long long y_base, long long y_sample, long long y_channel, long long y_row, long long y_column,
    const long long* __restrict__ rows, const long long* __restrict__ columns,
    int row_radius, int column_radius, int height, int width, int channels, int features,
    double truncate, double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  typedef weight_of<T> R;
  unsigned block = blockIdx.x;
  const unsigned parts = (channels - 1) / CHANNELS + 1, tiles = (height * width - 1) / THREADS + 1;
  const int c0 = block % parts * CHANNELS;                  block /= parts;
  const int pixel = block % tiles * THREADS + threadIdx.x;  block /= tiles;
  const long long sample = block;
  if (pixel >= height * width) return;

  const int i = pixel / width, j = pixel - i * width, active = min(CHANNELS, channels - c0);
  const double range = r[r_base + sample * r_sample + i * r_row + j * r_column];
  const double spatial = s[s_base + sample * s_sample + i * s_row + j * s_column];
  const Falloff<R> f = falloff<R>(spatial, range, truncate, max(row_radius, column_radius));
  const Seen<T> image = {x + x_base + sample * x_sample + c0 * x_channel, x_row, x_column, rows, 1, columns, 1};
  const Seen<guide_of<T>> likeness = {g + g_base + sample * g_sample, g_row, g_column, rows, 1, columns, 1};
  const guide_of<T>* own = likeness.at(i, j, row_radius, column_radius);
  const A cval = number<A>(cval_re, cval_im);

  const int up = min(f.radius, row_radius), left = min(f.radius, column_radius);
  Sums<A, R, CHANNELS, 1> totals, sums;
  totals.clear();
  sums.clear();
  for (int m = -up; m <= up; ++m) {
    for (int n = -left; n <= left; ++n) {
      const guide_of<T>* tap = likeness.at(i, j, row_radius + m, column_radius + n);
      const R difference = squared_difference<R, guide_of<T>>({tap, g_feature}, {own, g_feature}, features, f.unit, (R)cval_re);
      const R w = f.keeps() ? (R)1 : f.weight(difference, squared_distance<R>(m, n));
      const T* from = image.at(i, j, row_radius + m, column_radius + n);
      sums.weights[0] += w;
#pragma unroll
      for (int c = 0; c < CHANNELS; ++c)
        if (c < active) sums.values[c][0] = add_weighted(sums.values[c][0], w, value_at(from, c * x_channel, cval));
    }
    totals.take(sums);
  }
  T* to = y + y_base + sample * y_sample + c0 * y_channel + i * y_row + j * y_column;
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c)
    if (c < active) to[c * y_channel] = Narrow<T>::from(divided(totals.values[c][0], totals.weights[0]));
}
