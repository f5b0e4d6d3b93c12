// A block's way over the cells of some planes, each `rows` rows of `across` cells: a thread meets every STEP-th, row by
// row and plane by plane, so that all threads have work and many loads are in flight, however short rows are.
#pragma once

template <int STEP> struct Cells {
  int rows, across;
  int plane, row, cell;

  __device__ __forceinline__ Cells(int rows, int across)
      : rows(rows), across(across), plane(0), row(threadIdx.x / across), cell(threadIdx.x % across) { wrap(); }
  __device__ __forceinline__ void next()
  {
    row += STEP / across;
    cell += STEP % across;
    if (cell >= across) {
      cell -= across;
      ++row;
    }
    wrap();
  }
  __device__ __forceinline__ void wrap()
  {
    while (row >= rows) {
      row -= rows;
      ++plane;
    }
  }
};
