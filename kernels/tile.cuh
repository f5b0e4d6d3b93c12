// What kernels share that read an image through the window: a tile of it in shared memory, V outputs a thread.
//
// A tile row is stored by columns modulo V: column c lies at (c % V)*pitch + c / V.  Neighbouring
// threads, V columns apart, then read neighbouring words.
#pragma once
#include "numbers.cuh"

template <class A> constexpr int WIDTH = 16 / sizeof(A);  // V: neighbouring outputs of a thread
constexpr int THREADS = 128;

// An image as a kernel sees it: V neighbours along its last axis may be read at once if `runs`.
template <class T> struct Image { const T* data; long long plane, row, column; bool runs; };

// Where a tile lies: its first entry in each index table, and its extent.
struct Tile { int row0, column0, rows, columns, pitch; };
struct Table { const long long* sources; int entries; };

template <int V> __device__ __forceinline__ int place(int column, int pitch) { return column % V * pitch + column / V; }

// Copy the pixels of some planes into shared memory, a warp per row.
template <int V, class T, class A>
__device__ __forceinline__ void load_tile(
    A* tile, const Tile& t, int planes, const Image<T>& x, const Table& rows, const Table& columns, bool dense, A cval)
{
  const int lane = threadIdx.x % 32, last = t.column0 + t.columns - 1;
  const long long left = columns.sources[t.column0];
  // One run of neighbouring pixels: entries of a dense table climb by at most one, so that a rise by
  // the whole width leaves no room for a fold.
  const bool inside = dense && last < columns.entries && left >= 0 && columns.sources[last] - left == t.columns - 1;
  for (int r = threadIdx.x / 32; r < planes * t.rows; r += THREADS / 32) {
    const int plane = r / t.rows, entry = t.row0 + r - plane * t.rows;
    A* line = tile + r * V * t.pitch;
    const long long row = entry < rows.entries ? rows.sources[entry] : -1;
    const T* source = x.data + plane * x.plane + row * x.row;
    if (row >= 0 && inside && x.runs) {
      const int before = left % V;  // pixels between the aligned start and the tile
#pragma unroll 2
      for (int c = lane * V - before; c < t.columns; c += 32 * V) {
        const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(source + left + c);
#pragma unroll
        for (int v = 0; v < V; ++v)
          if (c + v >= 0 && c + v < t.columns) line[place<V>(c + v, t.pitch)] = widen(pack.v[v]);
      }
    } else {
#pragma unroll 2
      for (int c = lane; c < t.columns; c += 32) {
        const int at = t.column0 + c;
        const long long column = row >= 0 && at < columns.entries ? columns.sources[at] : -1;
        line[place<V>(c, t.pitch)] = column < 0 ? cval : widen(source[column * x.column]);
      }
    }
  }
}

// f(u, v, pixel) for `count` neighbouring taps u and V neighbouring outputs v, of which the first reads
// `column`, a multiple of V, through the first.
template <int V, int TAPS, class A, class F>
__device__ __forceinline__ void for_each_pixel(const A* line, int pitch, int column, int cs, int cd, int count, F f)
{
  if (cs == 1 && cd == 1) {  // neighbouring outputs share pixels: each is read once
    A pixels[TAPS + V - 1];
    const A* from = line + column / V;
#pragma unroll
    for (int c = 0; c < TAPS + V - 1; ++c)
      if (c < count + V - 1) pixels[c] = from[place<V>(c, pitch)];
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
      if (u < count) {
#pragma unroll
        for (int v = 0; v < V; ++v) f(u, v, pixels[u + v]);
      }
  } else {
#pragma unroll
    for (int u = 0; u < TAPS; ++u)
      if (u < count) {
#pragma unroll
        for (int v = 0; v < V; ++v) f(u, v, line[place<V>(column + v * cs + u * cd, pitch)]);
      }
  }
}

// Write up to V neighbouring outputs.
template <class T, class A, int V>
__device__ __forceinline__ void store_run(T* y, long long step, bool runs, const A (&values)[V], int outputs)
{
  if (runs && outputs == V) {
    Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.v[v] = Narrow<T>::from(values[v]);
    *reinterpret_cast<Pack<T, V>*>(y) = pack;
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (v < outputs) y[v * step] = Narrow<T>::from(values[v]);
  }
}
