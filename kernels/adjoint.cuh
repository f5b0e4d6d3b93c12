// Which outputs read a pixel: the boundary, seen from the image.  For what gathers an adjoint.
#pragma once

// entries[tap*pixels + pixel] is the one output that reads the pixel through the tap; -1 if none does; or,
// where a boundary mode makes several do, -2 - at: then entries[at] says how many, and they follow.
struct InverseTable { const int* entries; int pixels; };

// Call f(output) for each output that reads the pixel through the tap, in the table's order.
template <class F> __device__ __forceinline__ void for_each_output(const InverseTable& table, int tap, int pixel, F f)
{
  int output = table.entries[tap * table.pixels + pixel], left = 0;
  if (output == -1) return;
  const int* next = nullptr;
  if (output < 0) {
    next = table.entries - 2 - output;
    left = *next++ - 1;
    output = *next++;
  }
  for (;;) {
    f(output);
    if (left-- == 0) return;
    output = *next++;
  }
}

// The output of a given rank, from 0, among those that read the pixel through the tap; -1 past the last.
__device__ __forceinline__ int nth_output(const InverseTable& table, int tap, int pixel, int rank)
{
  const int output = table.entries[tap * table.pixels + pixel];
  if (output >= -1) return rank == 0 ? output : -1;
  const int* list = table.entries - 2 - output;
  return rank < list[0] ? list[1 + rank] : -1;
}
