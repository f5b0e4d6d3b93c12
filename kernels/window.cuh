// An image seen through the window: index tables say which pixel a tap of an output reads.
#pragma once

struct Place { int i, j; };  // a pixel; i is -1 where there is none

template <class T> struct Seen {
  const T* x;
  long long row, column;
  const long long* rows; int rs;
  const long long* columns; int cs;

  // The pixel that output (i, j) reads through the tap `down` and `across` entries on; null stands for cval.
  __device__ __forceinline__ const T* at(int i, int j, int down, int across) const
  {
    const long long h = rows[i * rs + down], w = columns[j * cs + across];
    return h < 0 || w < 0 ? nullptr : x + (h * row + w * column);
  }
};
