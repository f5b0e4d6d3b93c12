// Patches d*x by rows (m,n,c) and pixels of all samples, for the gradient of equation (2) in its weights.
#pragma once
#include "window.cuh"

// One row (m,n,c) of the patches: where its factors and pixels lie, and its tap in entries of the index tables.
struct Row { long long d, x; int down, across; };

// One output pixel; `inside` the part of the sum that a block forms.
struct Pixel { long long sample; int i, j; bool inside; };

__device__ __forceinline__ Pixel pixel_at(int at, int last, int height, int width)
{
  const int sample = at / (height * width), p = at - sample * (height * width), i = p / width;
  return {sample, i, p - i * width, at < last};
}

// How d and x lie, and the taps in the index tables.
struct Strides { long long d_m, d_n, d_entry, x_channel; int rd, cd; };

// A row of a group, or the last where there is none.
__device__ __forceinline__ Row row_at(
    int row, int rows, int kw, int channels, int first_channel, int channels_per_entry, const Strides& steps)
{
  row = min(row, rows - 1);
  const int tap = row / channels, m = tap / kw, n = tap - m * kw, channel = first_channel + row - tap * channels;
  return {m * steps.d_m + n * steps.d_n + channel / channels_per_entry * steps.d_entry, channel * steps.x_channel,
          m * steps.rd, n * steps.cd};
}
