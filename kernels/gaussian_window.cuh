// Walking an image under Gaussian windows: a tile of it in shared memory, folded where weights are the same.
//
// A thread owns V neighbouring outputs of a row.  It takes CHUNK columns to the right and to the left at a time
// and goes down the rows of the window, row -m with row m: the weights of these columns stay in
// registers.  Nothing beyond the largest radius of a block's outputs is loaded, nothing beyond that
// of a thread's is computed.  A pixel that an output does not reach gets weight 0, which is as
// good as none while the tile's pixels are tame; else every tap is taken for itself.
//
// What is larger than shared memory is walked in strips: rows and columns of so many distances, on both sides.
#pragma once
#include "gaussian.cuh"
#include "tile.cuh"

constexpr int LANES = 8;                    // threads side by side along a row of outputs
constexpr int LINES = THREADS / LANES;
constexpr int CHUNK = 8;
constexpr int STRIP_ROWS = 16, STRIP_COLUMNS = 32;  // a multiple of CHUNK
constexpr double TAME = 1e30;               // sums of more pixels than a window has stay finite

// Distances m0 … m1-1 of rows and n0 … n1 of columns, in a tile as a thread sees it: its row m below is row
// `below + m`, that above `above - m`, and likewise its columns, counted from its own first one.
template <class A> struct Strip {
  const A* tile; int pitch;
  int m0, m1, n0, n1;
  int above, below, left, right;
  template <int V> __device__ __forceinline__ const A* row(int at) const { return tile + at * V * pitch; }
  // The pixel m below and n to the right of the thread's output v.
  template <int V> __device__ __forceinline__ A at(int m, int n, int v) const
  {
    const int c = (n < 0 ? left : right) + n + v;
    return row<V>((m < 0 ? above : below) + m)[place<V>(c, pitch)];
  }
};

template <int V> __host__ __device__ constexpr int pitch_of(int columns)
{
  constexpr int banks = 16 / V;  // lines of a warp end up in other banks
  const int least = (columns + V - 1) / V;
  return least + (banks + banks / 2 - least % banks) % banks;
}

__device__ __forceinline__ int block_maximum(int* scratch, int value)
{
  scratch[threadIdx.x] = value;
  __syncthreads();
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) scratch[threadIdx.x] = max(scratch[threadIdx.x], scratch[threadIdx.x + half]);
    __syncthreads();
  }
  const int largest = scratch[0];
  __syncthreads();
  return largest;
}

// An image seen through the window, as a block does: its first output in the index tables.
template <class T, class A> struct View { Image<T> image; Table rows, columns; int row0, column0; A cval; };

template <class A> __device__ __forceinline__ bool is_wild(A v) { return !(v < (A)TAME && v > -(A)TAME); }

// Take a level, if there is one, off a tile; whether that holds a pixel that weight 0 would not cancel.
template <int V, class A> __device__ __forceinline__ bool lower(A* tile, int rows, int columns, int pitch, const float* level)
{
  bool wild = false;
  for (int r = threadIdx.x / 32; r < rows; r += THREADS / 32)
    for (int c = threadIdx.x % 32; c < columns; c += 32) {
      A& pixel = tile[r * V * pitch + place<V>(c, pitch)];
      wild = wild || is_wild(pixel);
      if (level != nullptr) pixel -= *level;
    }
  return __syncthreads_or(wild) != 0;
}

// Leave in shared memory what all pixels that a block's outputs read have in common: the one nearest to 0 if all have
// one sign, so that none grows where it is taken off.  The block has so many rows and columns of outputs.
template <class T, class A>
__device__ __forceinline__ const float* common_level(
    const View<T, A>& from, int rows, int columns, int row_radius, int column_radius, int* scratch)
{
  bool above = false, below = false;
  int nearest = __float_as_int((float)TAME);  // not negative, so that bits are ordered as numbers are
  for (int r = (int)threadIdx.x / 32 - row_radius; r < rows + row_radius; r += THREADS / 32)
    for (int c = (int)threadIdx.x % 32 - column_radius; c < columns + column_radius; c += 32) {
      const long long i = from.rows.sources[from.row0 + r], j = from.columns.sources[from.column0 + c];
      const A pixel = i < 0 || j < 0 ? from.cval : widen(from.image.data[i * from.image.row + j * from.image.column]);
      above = above || pixel > 0;
      below = below || pixel < 0;
      nearest = min(nearest, __float_as_int(fabsf((float)pixel)));
    }
  const float size = __int_as_float(-block_maximum(scratch, -nearest));
  const bool any_above = __syncthreads_or(above) != 0, any_below = __syncthreads_or(below) != 0;
  float* level = reinterpret_cast<float*>(scratch);
  if (threadIdx.x == 0) *level = any_above && any_below ? 0 : any_below ? -size : size;
  return level;
}

// Let `sums` add what the block's outputs read, up to `row_radius` rows and `column_radius` columns away, strip
// by strip; shared memory holds so many pixels.  A level, if there is one, is taken off all.
template <int V, class T, class A, class Sums>
__device__ __forceinline__ void walk_window(
    Sums& sums, A* tile, int held, const View<T, A>& from, int row_radius, int column_radius, const float* level)
{
  const int padded = (column_radius + CHUNK - 1) / CHUNK * CHUNK;
  const int line = threadIdx.x / LANES, lane = threadIdx.x % LANES;
  const bool whole = (LINES + 2 * row_radius) * V * pitch_of<V>(LANES * V + 2 * padded) <= held;
  const int row_step = whole ? row_radius + 1 : STRIP_ROWS, column_step = whole ? padded + CHUNK : STRIP_COLUMNS;
  for (int m0 = 0; m0 <= row_radius; m0 += row_step)
    for (int n0 = 0; n0 == 0 || n0 < padded; n0 += column_step) {
      const int m1 = min(m0 + row_step, row_radius + 1), n1 = min(n0 + column_step, padded);
      const int sides = whole ? 1 : 2;
      const int rows = whole ? LINES + 2 * row_radius : LINES + m1 - m0 - 1;
      const int columns = whole ? LANES * V + 2 * padded : LANES * V + n1 - n0;
      const int pitch = pitch_of<V>(sides * columns);
      __syncthreads();  // the previous tile is read
      for (int side = 0; side < sides * sides; ++side) {
        const int down = side / 2, across = side % 2;
        const Tile part = {from.row0 + (down ? m0 : 1 - m1), from.column0 + (across ? n0 : -n1), rows, columns, pitch};
        load_tile<V>(tile + down * rows * V * pitch + across * columns / V, part, 1, from.image, from.rows, from.columns, true, from.cval);
      }
      __syncthreads();
      const bool wild = lower<V>(tile, sides * rows, sides * columns, pitch, level);
      const int above = line + m1 - 1, left = n1;
      const Strip<A> strip = {tile + lane, pitch, m0, m1, n0, n1, above, whole ? above : line + rows - m0,
                              left, whole ? left : columns - n0};
      if (wild)
        sums.add_each(strip);
      else
        sums.add(strip);
    }
}

// Where a block's outputs lie; columns of tiles go fastest.
struct Place { int row, column; long long group; };

__device__ __forceinline__ Place place_of(unsigned block, int columns, int height, int width)
{
  const unsigned across = (width - 1) / columns + 1, down = (height - 1) / LINES + 1;
  return {(int)(block / across % down) * LINES, (int)(block % across) * columns, block / across / down};
}

// f(c, pixel) for the `COUNT` columns from `column` on, a multiple of V, of a row of the tile
template <int V, int COUNT, class A, class F>
__device__ __forceinline__ void for_columns(const A* row, int column, int pitch, F f)
{
  const A* from = row + column / V;
#pragma unroll
  for (int c = 0; c < COUNT; ++c) f(c, from[place<V>(c, pitch)]);
}
