// The adjoint of `correlate`, one kernel per location, shared by the planes of a batch:
//
//     x[g,p,h,w] = Σ k[m,n,g,i,j] z[g,p,i,j]   over all m, n, i, j with source(i,m) = h and source(j,n) = w
//
// z (groups, planes, H_in, W_in), k (kh, kw, groups, H_in, W_in), x (groups, planes, H, W), all of any
// strides (counted in elements).  Planes of a group share its kernels.  It is computed as a gather: the
// inverse tables `rows` and `columns` list the outputs i, j of the window that read a pixel.
//
// The kernel tensor is the traffic: kh*kw values per pixel, used once per plane.  Neighbouring threads
// own neighbouring pixels of a row and walk the taps together, so that they read neighbouring values,
// each once for up to P planes.  A thread owns R pixels, one below the other: then neighbouring rows of
// taps need the same z, R + TAPS - 1 values for R * TAPS products.
//
// Most reads are direct: i*stride + m*dilation + start = h, no boundary in between.  They are a pattern,
// not a table: pixels h = class + stride*h' of a class meet every `tap_step`th tap, and output
// first + h' - t*output_step through its t-th one.  z comes from a tile in shared memory, 0 outside;
// windows too large for it are walked in chunks of taps.  What a boundary mode folds back comes after
// that, from the inverse tables, in the few blocks where their axis' plan does not rule it out.
//
// A tile holds column after column, so that a thread reads its rows of z 16 bytes at a time; `pitch` is
// an odd number of these, which keeps neighbouring columns in other banks.
#include "adjoint.cuh"
#include "cells.cuh"
#include "numbers.cuh"

template <class A> constexpr int ROWS = 16 / sizeof(A);  // R: pixels of a thread
constexpr int THREADS = 128;
constexpr int TAPS_IN_FLIGHT = 4;  // rows of taps, R values for each

// Blocks per multiprocessor, at least, which bounds the registers; and values of a tile that a thread has in flight.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <int P> constexpr int BLOCKS = P == 16 ? 2 : P == 4 ? 3 : 4;
template <class A, int P> constexpr int CELLS = sizeof(A) == 16 ? 2 : 4;
#else
template <int P> constexpr int BLOCKS = P == 16 ? 2 : P == 4 ? 3 : 5;
template <class A, int P> constexpr int CELLS = P > 1 && sizeof(A) == 4 ? 8 : sizeof(A) == 16 ? 2 : 4;
#endif

// The direct reads of one class of pixels along an axis, and what is known of a block of them.
struct Direct {
  int first_tap, taps, tap_step, first_output, output_step;
  bool inside;  // all of a block's pixels exist, and so do the outputs that would read them
  bool alone;   // nothing else reads them
};

// plan: (first tap, taps, first output) of each class, then flags for each class and block
__device__ __forceinline__ Direct direct(const int* plan, int classes, int blocks, int cls, int block, int tap_step, int output_step)
{
  const int flags = plan[3 * classes + cls * blocks + block];
  return {plan[3 * cls], plan[3 * cls + 1], tap_step, plan[3 * cls + 2], output_step, (flags & 1) != 0, (flags & 2) != 0};
}

// The output that reads the first pixel of a class directly through a tap; far below 0 if none does.
__device__ __forceinline__ int output_of(const Direct& axis, int tap)
{
  const int t = (tap - axis.first_tap) / axis.tap_step;
  const bool meets = t >= 0 && t < axis.taps && axis.first_tap + t * axis.tap_step == tap;
  return meets ? axis.first_output - t * axis.output_step : -(1 << 30);
}

template <class T> struct Image { const T* data; long long plane, row, column; int height, width; };
template <class T> struct Kernels { const T* data; long long m, n, row, column; };

// The pixels of a thread: of its class, from (row, column) on, `rows` of them exist.
struct Pixels { int row, column, rows; bool exist; };

// Where a block lies in its classes, and its threads.
struct Block { int row, column, lines, lanes; };

// How many taps a tile serves, and the distance of its columns.
struct Chunk { int rows, columns, pitch; };

// A tile of z: the output in its first row and column, and its extent.
struct Tile { int row0, column0, rows, columns, pitch; };

// Copy the outputs under a tile into shared memory, CELLS of them in flight; 0 outside.
template <int CELLS, class T, class A>
__device__ __forceinline__ void load_tile(A* tile, const Tile& t, int planes, const Image<T>& z)
{
  Cells<THREADS> cells(t.rows, t.columns);
#pragma unroll 1
  while (cells.plane < planes) {
    const T* from[CELLS];
    int places[CELLS];
    T values[CELLS];
#pragma unroll
    for (int u = 0; u < CELLS; ++u) {
      const int i = t.row0 + cells.row, j = t.column0 + cells.cell;
      const bool exists = i >= 0 && i < z.height && j >= 0 && j < z.width;
      places[u] = cells.plane < planes ? (cells.plane * t.columns + cells.cell) * t.pitch + cells.row : -1;
      from[u] = places[u] >= 0 && exists ? z.data + cells.plane * z.plane + i * z.row + j * z.column : nullptr;
      cells.next();
    }
#pragma unroll
    for (int u = 0; u < CELLS; ++u)
      if (from[u] != nullptr) values[u] = *from[u];
#pragma unroll
    for (int u = 0; u < CELLS; ++u)
      if (places[u] >= 0) tile[places[u]] = from[u] != nullptr ? widen(values[u]) : number<A>(0, 0);
  }
}

// Read the kernel values of R pixels for `count` rows of taps.  Pixel r meets through tap u the output r - u
// rows below that of the first pixel and tap.  Unless all is `inside`, there are `rows` pixels, `above` rows
// of outputs above that one and `below` from it on; what does not exist is 0.
template <class T, int TAPS, int R>
__device__ __forceinline__ void load_taps(
    T (&values)[TAPS][R], int count, const T* from, long long tap, long long row, bool inside, int above, int below, int rows)
{
  if (inside) {
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
      if (u < count) {
#pragma unroll
        for (int r = 0; r < R; ++r) values[u][r] = from[u * tap + r * row];
      }
  } else {
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const bool exists = u < count && r < rows && u - r <= above && r - u < below;
        values[u][r] = exists ? from[u * tap + r * row] : Narrow<T>::from(number<accumulator<T>>(0, 0));
      }
  }
}

// sums[r] += Σ_u values[u][r] * z, where z of (u, r) lies u rows above at[r].  Several rows of taps are
// taken together only where they step by one; then `at` is aligned to R values.
template <class T, class A, int TAPS, int R>
__device__ __forceinline__ void add_taps(A (&sums)[R], const T (&values)[TAPS][R], int count, const A* at, bool together)
{
  A z[TAPS + R];
  if (together) {
#pragma unroll
    for (int q = 0; q < TAPS + R; q += R)
      if (q + R > TAPS - count + 1) {
        const Pack<A, R> pack = *reinterpret_cast<const Pack<A, R>*>(at + q - TAPS);
#pragma unroll
        for (int r = 0; r < R; ++r) z[q + r] = pack.v[r];
      }
  } else {
#pragma unroll
    for (int r = 0; r < R; ++r) z[TAPS + r] = at[r];
  }
#pragma unroll
  for (int u = 0; u < TAPS; ++u)
    if (u < count) {
#pragma unroll
      for (int r = 0; r < R; ++r) sums[r] = multiply_add(widen(values[u][r]), z[TAPS + r - u], sums[r]);
    }
}

// totals += sums, sums = 0
template <class A, int P, int R> __device__ __forceinline__ void flush(A (&totals)[P][R], A (&sums)[P][R])
{
#pragma unroll
  for (int p = 0; p < P; ++p)
#pragma unroll
    for (int r = 0; r < R; ++r) {
      totals[p][r] = add(totals[p][r], sums[p][r]);
      sums[p][r] = number<A>(0, 0);
    }
}

// The direct reads of a thread in one chunk of taps: its first pixel's output through the first tap (i, j),
// the kernel value there, that output in the tile, and the steps between taps.
template <class T, class A> struct Walk {
  const T* from; long long row, tap, column_tap;
  const A* at; int pitch, plane;
  int i, j, output_step, column_output_step;
  bool inside;
};

// Add the products of one chunk of taps.
template <int TAPS, class T, class A, int P, int R>
__device__ __forceinline__ void add_chunk(
    A (&totals)[P][R], A (&sums)[P][R], int active, const Walk<T, A>& walk, int row_taps, int column_taps, int height, int width, int rows)
{
  const bool together = walk.output_step == 1;
  for (int u = 0; u < row_taps; u += together ? TAPS : 1) {
    const int count = together ? min(TAPS, row_taps - u) : 1, i = walk.i - u * walk.output_step;
    const T* from = walk.from + u * walk.tap;
    const A* at = walk.at - u * walk.output_step;
    int j = walk.j;
#pragma unroll 1
    for (int v = 0; v < column_taps; ++v) {
      T values[TAPS][R];
      load_taps(values, count, from, walk.tap, walk.row, walk.inside, i, height - i, j >= 0 && j < width ? rows : 0);
#pragma unroll
      for (int p = 0; p < P; ++p)
        if (p < active) add_taps(sums[p], values, count, at + p * walk.plane, together);
      from += walk.column_tap;
      at -= walk.column_output_step * walk.pitch;
      j -= walk.column_output_step;
    }
    flush(totals, sums);  // long windows are summed a few rows of taps at a time
  }
}

// Walk the direct reads of a block, chunk by chunk; shared memory holds what each chunk reads of z.
template <int TAPS, class T, class A, int P, int R>
__device__ __forceinline__ void add_direct(
    A (&totals)[P][R], A (&sums)[P][R], int active, const Image<T>& z, const Kernels<T>& k, const Block& block,
    const Pixels& pixels, const Direct& down, const Direct& across, A* tile, const Chunk& most)
{
  for (int t0 = 0; t0 < down.taps; t0 += most.rows)
    for (int v0 = 0; v0 < across.taps; v0 += most.columns) {
      const int tc = min(most.rows, down.taps - t0), vc = min(most.columns, across.taps - v0);
      const int overhang = (tc - 1) * down.output_step, beside = (vc - 1) * across.output_step;
      const int pad = down.output_step == 1 ? (R - (tc - 1) % R) % R : 0;  // aligns the rows that a thread reads
      const int i0 = down.first_output - t0 * down.output_step, j0 = across.first_output - v0 * across.output_step;
      const Tile t = {i0 + block.row - overhang - pad, j0 + block.column - beside,
                      block.lines * R + overhang + pad, block.lanes + beside, most.pitch};
      __syncthreads();  // the previous tile is read
      load_tile<CELLS<A, P>>(tile, t, active, z);
      __syncthreads();
      const int i = i0 + pixels.row, j = j0 + pixels.column;
      const Walk<T, A> walk = {
          k.data + (down.first_tap + t0 * down.tap_step) * k.m + (across.first_tap + v0 * across.tap_step) * k.n + i * k.row + j * k.column,
          k.row, down.tap_step * k.m - down.output_step * k.row, across.tap_step * k.n - across.output_step * k.column,
          tile + (j - t.column0) * t.pitch + i - t.row0, t.pitch, t.columns * t.pitch,
          i, j, down.output_step, across.output_step, down.inside && across.inside};
      if (pixels.exist) add_chunk<TAPS>(totals, sums, active, walk, tc, vc, z.height, z.width, pixels.rows);
    }
}

// Add what the inverse tables list beyond the direct reads; z straight from global memory.
template <class T, class A, int P, int R>
__device__ __forceinline__ void add_others(
    A (&totals)[P][R], A (&sums)[P][R], int active, const Image<T>& z, const Kernels<T>& k, const Pixels& pixels,
    const Direct& down, const InverseTable& rows, int row_classes, int first_row, int kh,
    const Direct& across, const InverseTable& columns, int column, int kw)
{
  for (int m = 0; m < kh; ++m) {
    const int direct_row = output_of(down, m) + pixels.row;
    for (int rank = 0;; ++rank) {
      int i[R];
      bool any = false, all_direct = true;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        i[r] = r < pixels.rows ? nth_output(rows, m, first_row + r * row_classes, rank) : -1;
        any = any || i[r] >= 0;
        all_direct = all_direct && (i[r] < 0 || i[r] == direct_row + r);
      }
      if (!any) break;
      for (int n = 0; n < kw; ++n) {
        const int direct_column = output_of(across, n) + pixels.column;
        for_each_output(columns, n, column, [&](int j) {
          const bool direct = j == direct_column;
          if (direct && all_direct) return;
          A values[R];
          bool used[R];
#pragma unroll
          for (int r = 0; r < R; ++r) {
            used[r] = i[r] >= 0 && !(direct && i[r] == direct_row + r);
            values[r] = used[r] ? widen(k.data[m * k.m + n * k.n + i[r] * k.row + j * k.column]) : number<A>(0, 0);
          }
#pragma unroll
          for (int p = 0; p < P; ++p)
            if (p < active) {
#pragma unroll
              for (int r = 0; r < R; ++r) {
                const A pixel = used[r] ? widen(z.data[p * z.plane + i[r] * z.row + j * z.column]) : number<A>(0, 0);
                sums[p][r] = multiply_add(values[r], pixel, sums[p][r]);
              }
            }
        });
      }
    }
    flush(totals, sums);
  }
}

// grid: one block per group, tile row, tile column, class of rows, class of columns and P planes (the
// planes fastest)
// dynamic shared memory: min(P, planes) * tile columns * pitch accumulators
template <class T, int P>
__global__ void __launch_bounds__(THREADS, BLOCKS<P>)
spread(
    const T* __restrict__ z, long long z_base, long long z_group, long long z_plane, long long z_row, long long z_column,
    const T* __restrict__ k, long long k_base, long long k_group, long long k_m, long long k_n, long long k_row, long long k_column,
    T* __restrict__ x, long long x_base, long long x_group, long long x_plane, long long x_row, long long x_column,
    const int* __restrict__ rows, int height, const int* __restrict__ row_plan, int row_classes, int row_tap_step, int row_output_step,
    const int* __restrict__ columns, int width, const int* __restrict__ column_plan, int column_classes, int column_tap_step, int column_output_step,
    int kh, int kw, int height_in, int width_in, int planes, int lanes, int row_taps, int column_taps, int pitch)
{
  typedef accumulator<T> A;
  constexpr int R = ROWS<A>;
  extern __shared__ __align__(16) unsigned char shared[];
  A* tile = reinterpret_cast<A*>(shared);

  const int lines = THREADS / lanes;
  unsigned block = blockIdx.x;
  const unsigned plane_tiles = (planes - 1) / P + 1;
  const unsigned column_tiles = ((width - 1) / column_classes) / lanes + 1, row_tiles = ((height - 1) / row_classes) / (lines * R) + 1;
  const int plane0 = block % plane_tiles * P;         block /= plane_tiles;
  const int column_class = block % column_classes;    block /= column_classes;
  const int row_class = block % row_classes;          block /= row_classes;
  const int column_tile = block % column_tiles;       block /= column_tiles;
  const int row_tile = block % row_tiles;             block /= row_tiles;
  const long long group = block;

  const Direct down = direct(row_plan, row_classes, row_tiles, row_class, row_tile, row_tap_step, row_output_step);
  const Direct across = direct(column_plan, column_classes, column_tiles, column_class, column_tile, column_tap_step, column_output_step);
  const int active = min(P, planes - plane0);
  const Block at = {row_tile * lines * R, column_tile * lanes, lines, lanes};
  const int row = at.row + threadIdx.x / lanes * R, column = at.column + threadIdx.x % lanes;
  const int h = row_class + row * row_classes, w = column_class + column * column_classes;
  const Pixels pixels = {row, column, h < height ? min(R, (height - 1 - h) / row_classes + 1) : 0, h < height && w < width};
  const Image<T> image = {z + z_base + group * z_group + plane0 * z_plane, z_plane, z_row, z_column, height_in, width_in};
  const Kernels<T> kernels = {k + k_base + group * k_group, k_m, k_n, k_row, k_column};

  A totals[P][R], sums[P][R];
#pragma unroll
  for (int p = 0; p < P; ++p)
#pragma unroll
    for (int r = 0; r < R; ++r) totals[p][r] = sums[p][r] = number<A>(0, 0);

  add_direct<TAPS_IN_FLIGHT>(totals, sums, active, image, kernels, at, pixels, down, across, tile, {row_taps, column_taps, pitch});
  if (!pixels.exist) return;
  if (!(down.alone && across.alone))
    add_others(totals, sums, active, image, kernels, pixels, down, {rows, height}, row_classes, h, kh, across, {columns, width}, w, kw);

  T* to = x + x_base + group * x_group + plane0 * x_plane + h * x_row + w * x_column;
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (p < active) {
#pragma unroll
      for (int r = 0; r < R; ++r)
        if (r < pixels.rows) to[p * x_plane + r * row_classes * x_row] = Narrow<T>::from(totals[p][r]);
    }
}
