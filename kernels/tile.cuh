// What kernels share that read an image through the window: a tile of it in shared memory, V outputs a thread.
//
// A tile row is stored by columns modulo V: column c lies at (c % V)*pitch + c / V.  Neighbouring
// threads, V columns apart, then read neighbouring words.
#pragma once
#include "cells.cuh"
#include "numbers.cuh"

template <class A> constexpr int WIDTH = 16 / sizeof(A);  // V: neighbouring outputs of a thread
constexpr int THREADS = 128;

// An image as a kernel sees it: V neighbours along its last axis may be read at once if `runs`.
template <class T> struct Image { const T* data; long long plane, row, column; bool runs; };

// Where a tile lies: its first entry in each index table, and its extent.
struct Tile { int row0, column0, rows, columns, pitch; };
struct Table { const long long* sources; int entries; };

template <int V> __device__ __forceinline__ int place(int column, int pitch) { return column % V * pitch + column / V; }

// Copy the pixels of some planes into shared memory, N neighbours at a time; plane(p) is where one starts, and
// column(c) the pixel in column c, negative outside.  The first cell starts `before` pixels before the tile.
// A thread reads CELLS of them before it stores the first.
template <int V, int N, int CELLS, class T, class A, class Plane, class Column>
__device__ __forceinline__ void load_cells(
    A* tile, const Tile& t, int planes, const Image<T>& x, const Table& rows, int before, A cval, Plane plane, Column column)
{
  Cells<THREADS> cells(t.rows, (t.columns + before + N - 1) / N);
#pragma unroll 1
  while (cells.plane < planes) {
    const T* from[CELLS];
    int lines[CELLS], columns[CELLS];
    Pack<T, N> pixels[CELLS];
#pragma unroll
    for (int u = 0; u < CELLS; ++u) {
      lines[u] = cells.plane < planes ? (cells.plane * t.rows + cells.row) * V * t.pitch : -1;
      columns[u] = cells.cell * N - before;
      const int entry = t.row0 + cells.row;
      const long long i = lines[u] >= 0 && entry < rows.entries ? rows.sources[entry] : -1, j = column(columns[u]);
      from[u] = i < 0 || j < 0 ? nullptr : plane(cells.plane) + (i * x.row + j * x.column);
      cells.next();
    }
#pragma unroll
    for (int u = 0; u < CELLS; ++u)
      if (from[u] != nullptr) pixels[u] = *reinterpret_cast<const Pack<T, N>*>(from[u]);
#pragma unroll
    for (int u = 0; u < CELLS; ++u)
      if (lines[u] >= 0) {
#pragma unroll
        for (int v = 0; v < N; ++v) {
          const int c = columns[u] + v;
          if (N == 1 || (c >= 0 && c < t.columns))
            tile[lines[u] + place<V>(c, t.pitch)] = from[u] == nullptr ? cval : widen(pixels[u].v[v]);
        }
      }
  }
}

template <int V, int CELLS, class T, class A, class Plane>
__device__ __forceinline__ void load_planes(
    A* tile, const Tile& t, int planes, const Image<T>& x, const Table& rows, const Table& columns, bool dense, A cval, Plane plane)
{
  const int last = t.column0 + t.columns - 1;
  const long long left = columns.sources[t.column0];
  // One run of neighbouring pixels: entries of a dense table climb by at most one, so that a rise by
  // the whole width leaves no room for a fold.
  const bool inside = dense && last < columns.entries && left >= 0 && columns.sources[last] - left == t.columns - 1;
  if (inside && x.runs)
    load_cells<V, V, CELLS>(tile, t, planes, x, rows, (int)(left % V), cval, plane, [&](int c) { return left + c; });
  else
    load_cells<V, 1, CELLS>(tile, t, planes, x, rows, 0, cval, plane, [&](int c) {
      const int at = t.column0 + c;
      return at < columns.entries ? columns.sources[at] : -1LL;
    });
}

// The same for planes one after the other.
template <int V, int CELLS = 2, class T, class A>
__device__ __forceinline__ void load_tile(
    A* tile, const Tile& t, int planes, const Image<T>& x, const Table& rows, const Table& columns, bool dense, A cval)
{
  load_planes<V, CELLS>(tile, t, planes, x, rows, columns, dense, cval, [&](int p) { return x.data + p * x.plane; });
}

// f(u, v, pixel) for `count` neighbouring taps u and V neighbouring outputs v, of which the first reads
// `column`, a multiple of V, through the first; neighbours read neighbouring pixels.
template <int V, int TAPS, class A, class F>
__device__ __forceinline__ void for_neighbours(const A* line, int pitch, int column, int count, F f)
{
  A pixels[TAPS + V - 1];  // each is read once
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
}

// The same for neighbours that read pixels some columns apart.
template <int V, int TAPS, class A, class F>
__device__ __forceinline__ void for_each_pixel(const A* line, int pitch, int column, int cs, int cd, int count, F f)
{
  if (cs == 1 && cd == 1) {
    for_neighbours<V, TAPS>(line, pitch, column, count, f);
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
