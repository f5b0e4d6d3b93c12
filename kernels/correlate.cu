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
// row in all P planes, reads every kernel value that it needs exactly once, V at a time, and takes the
// pixels from a tile in shared memory.  It reads AHEAD taps ahead, into places of its own in shared memory,
// while tiles are loaded too: what is in flight does not depend on registers, which hold the sums of P
// planes, nor on how long rows of taps are.  Windows too large for shared memory are walked in chunks of taps.
#include "copies.cuh"
#include "tile.cuh"

constexpr int TAPS = 4;                                                  // whose values are in registers at once
template <int P> constexpr int BLOCKS = P == 16 ? 2 : P == 4 ? 3 : 4;    // per multiprocessor, at least: bounds the registers
template <int P> constexpr int AHEAD_BYTES = P == 1 ? 16 << 10 : 24 << 10;
template <class T, int P> constexpr int AHEAD = AHEAD_BYTES<P> / (THREADS * WIDTH<accumulator<T>> * (int)sizeof(T));

// As for an image: V neighbours along the last axis may be read at once if `runs`.
template <class T> struct Kernels { const T* data; long long m, n, column; bool runs, conj; };

// The taps in the order in which they are used: chunk by chunk, row by row.
struct Taps {
  int kh, kw, row_taps, column_taps;
  int m0 = 0, n0 = 0, m = 0, n = 0;
  __device__ __forceinline__ bool more() const { return m0 < kh; }
  __device__ __forceinline__ void next()
  {
    if (++n < min(n0 + column_taps, kw)) return;
    if (++m == min(m0 + row_taps, kh)) {
      n0 += column_taps;
      if (n0 >= kw) {
        n0 = 0;
        m0 += row_taps;
      }
      m = m0;
    }
    n = n0;
  }
};

// A thread's kernel values of the next SLOTS taps, V for each; `slot` has the first.
template <class T, int V, int SLOTS> struct Ahead {
  Pack<T, V>* slots;  // THREADS apart
  const Kernels<T> kernels;
  const int outputs;
  Taps taps;  // the one to read next
  int slot = 0;

  __device__ __forceinline__ Pack<T, V>& at(int tap) const
  {
    const int place = slot + tap;
    return slots[(place < SLOTS ? place : place - SLOTS) * THREADS];
  }
  // Start to read one more tap into a place; what lies outside the output is 0.
  __device__ __forceinline__ void read(Pack<T, V>& to)
  {
    if (taps.more()) {
      const T* from = kernels.data + taps.m * kernels.m + taps.n * kernels.n;
      if (kernels.runs && outputs == V) {
        copy_async(&to, reinterpret_cast<const Pack<T, V>*>(from));
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v)
          if (v < outputs)
            copy_async(&to.v[v], from + v * kernels.column);
          else
            to.v[v] = Narrow<T>::from(number<accumulator<T>>(0, 0));
      }
      taps.next();
    }
    commit_copies();
  }
  __device__ __forceinline__ void start()
  {
#pragma unroll 1
    for (int tap = 0; tap < SLOTS; ++tap) read(slots[tap * THREADS]);
  }
  // Take the next `count` taps, and read as many further ones.
  template <class A> __device__ __forceinline__ void take(A (&values)[TAPS][V], int count)
  {
    wait_for_copies<SLOTS - TAPS>();
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
      if (u < count) {
        const Pack<T, V> pack = at(u);
#pragma unroll
        for (int v = 0; v < V; ++v) values[u][v] = kernels.conj ? conjugate(widen(pack.v[v])) : widen(pack.v[v]);
      }
#pragma unroll 1
    for (int u = 0; u < count; ++u) read(at(u));
    slot = slot + count < SLOTS ? slot + count : slot + count - SLOTS;
  }
};

// totals += sums, sums = 0
template <class A, int P, int V> __device__ __forceinline__ void flush(A (&totals)[P][V], A (&sums)[P][V])
{
#pragma unroll
  for (int p = 0; p < P; ++p)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      totals[p][v] = add(totals[p][v], sums[p][v]);
      sums[p][v] = number<A>(0, 0);
    }
}

// grid: one block per group, tile row, tile column and P planes (the planes fastest)
// dynamic shared memory: AHEAD_BYTES, and min(P, planes) * tile rows * V * pitch accumulators
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
  constexpr int V = WIDTH<A>, LY = THREADS / LX;
  extern __shared__ __align__(16) unsigned char shared[];
  A* tile = reinterpret_cast<A*>(shared + AHEAD_BYTES<P>);

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
  Ahead<T, V, AHEAD<T, P>> kernels = {
      reinterpret_cast<Pack<T, V>*>(shared) + threadIdx.x,
      {k + k_base + group * k_group + i * k_row + j * k_column, k_m, k_n, k_column, k_runs != 0, conj != 0},
      outputs, {kh, kw, row_taps, column_taps}};
  kernels.start();

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
      load_tile<V, V == 1 ? 2 : 4>(tile, t, active, image, {rows, row_entries}, {columns, column_entries}, dense != 0,
                                   number<A>(cval_re, cval_im));
      __syncthreads();
      const bool neighbours = cs == 1 && cd == 1;
      for (int m = 0; m < mc; ++m) {
        const A* first = tile + (line * rs + m * rd) * V * pitch;
        const int plane = t.rows * V * pitch;
#pragma unroll 1
        for (int n = 0; n < nc;) {
          const int count = neighbours ? min(TAPS, nc - n) : 1, column = lane * V * cs + n * cd;
          A values[TAPS][V];
          kernels.take(values, count);
          const auto product = [&](int p) {
            return [&, p](int u, int v, A pixel) { sums[p][v] = multiply_add(values[u][v], pixel, sums[p][v]); };
          };
#pragma unroll
          for (int p = 0; p < P; ++p)
            if (p < active) {
              if (neighbours)
                for_neighbours<V, TAPS>(first + p * plane, pitch, column, count, product(p));
              else
                for_each_pixel<V, 1>(first + p * plane, pitch, column, cs, cd, 1, product(p));
            }
          n += count;
        }
        if (n0 + nc == kw) flush(totals, sums);  // a row of taps is complete: long windows are summed row by row
      }
    }

  T* to = y + y_base + group * y_group + plane0 * y_plane + i * y_row + j * y_column;
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (p < active) store_run(to + p * y_plane, y_column, y_runs != 0, totals[p], outputs);
}
