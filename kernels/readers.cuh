// The outputs that read the pixels of a block, one rank after the other: for gradients in an image that are
// products of matrices.
#pragma once
#include "adjoint.cuh"
#include "window.cuh"

// The outputs that read a pixel through a tap, along one axis.
struct Outputs { const int* first; int count; };

__device__ __forceinline__ Outputs outputs_of(const InverseTable& table, int tap, int pixel)
{
  const int* entry = table.entries + tap * table.pixels + pixel;
  if (*entry >= -1) return {entry, *entry < 0 ? 0 : 1};
  const int* list = table.entries - 2 - *entry;
  return {list + 1, *list};
}

// The output of this rank among those that read a pixel through tap (m, n).
__device__ __forceinline__ Place reader(
    const InverseTable& rows, const InverseTable& columns, int m, int n, const Place& pixel, int rank)
{
  if (pixel.i < 0) return {-1, 0};
  const Outputs down = outputs_of(rows, m, pixel.i), across = outputs_of(columns, n, pixel.j);
  if (rank == 0) return down.count && across.count ? Place{*down.first, *across.first} : Place{-1, 0};
  if (rank >= down.count * across.count) return {-1, 0};
  return {down.first[rank / across.count], across.first[rank % across.count]};
}

// How pixels lie in blocks: one of every `row_step` rows and `column_step` columns, `across` of them side by side.
struct Grid { int height, width, row_step, column_step, across; };

// Pixel p of a tile of `pixels`; i is -1 beyond the image.
__device__ __forceinline__ Place pixel_of(const Grid& grid, unsigned tile, int p, int pixels)
{
  const int down = pixels / grid.across;
  const int tiles_down = ((grid.height - 1) / grid.row_step) / down + 1;
  const int tiles_across = ((grid.width - 1) / grid.column_step) / grid.across + 1;
  const int column0 = tile % tiles_across * grid.across;   tile /= tiles_across;
  const int row0 = tile % tiles_down * down;               tile /= tiles_down;
  const int column_class = tile % grid.column_step, row_class = tile / grid.column_step;
  const int h = row_class + (row0 + p / grid.across) * grid.row_step;
  const int w = column_class + (column0 + p % grid.across) * grid.column_step;
  return {h < grid.height && w < grid.width ? h : -1, w};
}
