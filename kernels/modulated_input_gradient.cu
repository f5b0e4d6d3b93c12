// The gradient of equation (2) in its image:
//
//     g_x[b,c,h,w] = Σ_{m,n} Σ_{(i,j) that read (h,w) through (m,n)} conj(d[m,n,b,e(c),i,j]) Σ_o conj(w[m,n,o,c]) g[b,o,i,j]
//
// g (batch, C_out, H_out, W_out), w (kh, kw, C_out, C_in/groups), d (kh, kw, batch, G, H_out, W_out) with the
// entry e(c) = c / (C_in/G), g_x (batch, C_in, H, W), all of any strides (counted in elements).  Inverse
// tables say which outputs read a pixel through a tap (adjoint.cuh).
//
// The sum over o is a matrix product, for each tap.  The modulation does not depend on o: it is applied
// afterwards, to the sums in registers.  That reads it once for all o, and any number of entries costs the same.
//
// A block makes BC channels of BP pixels.  Most pixels are read by one output through a tap, some by several,
// at folds of the boundary: the block takes the first outputs of all its pixels, then the second ones, and so
// on, and leaves a tap as soon as none of its pixels has more.  Its pixels are those of a small rectangle,
// so that few blocks see a fold; under a stride their distance is the stride, so that a tap reaches all or none.
#include "back_projection.cuh"
#include "readers.cuh"

// totals += conj(d) * sums, sums = 0; `d` is the first factor of a tap, and `entries` those of a thread's rows.
template <int ACROSS, class T, class A>
__device__ __forceinline__ void multiply_factors(
    A (&totals)[MICRO][MICRO], A (&sums)[MICRO][MICRO], const Place* places, const T* d, const int (&entries)[MICRO],
    long long d_entry, long long d_row, long long d_column, int across)
{
  const T* first[MICRO];
  A factors[MICRO];
#pragma unroll
  for (int q = 0; q < MICRO; ++q) {
    const Place place = places[column_of<A, ACROSS>(across, q)];
    first[q] = place.i < 0 ? nullptr : d + (place.i * d_row + place.j * d_column);
  }
#pragma unroll
  for (int r = 0; r < MICRO; ++r) {
    if (r == 0 || entries[r] != entries[r - 1]) {
#pragma unroll
      for (int q = 0; q < MICRO; ++q)
        factors[q] = first[q] == nullptr ? number<A>(0, 0) : conjugate(widen(first[q][entries[r] * d_entry]));
    }
#pragma unroll
    for (int q = 0; q < MICRO; ++q)
      if (first[q] != nullptr) totals[r][q] = multiply_add(factors[q], sums[r][q], totals[r][q]);
  }
  clear_sums(sums);
}

// grid: one block per BC channels, BP pixels, group and sample (the channels fastest)
template <class T, int BC, int BP>
__global__ void __launch_bounds__(BC * BP / (MICRO * MICRO), BLOCKS<accumulator<T>>)
modulated_input_gradient(
    const T* __restrict__ g, long long g_base, long long g_sample, long long g_group, long long g_output,
    long long g_row, long long g_column,
    const T* __restrict__ w, long long w_m, long long w_n, long long w_group, long long w_output, long long w_channel,
    const T* __restrict__ d, long long d_base, long long d_sample,
    long long d_m, long long d_n, long long d_entry, long long d_row, long long d_column,
    T* __restrict__ y, long long y_base, long long y_sample, long long y_group, long long y_channel,
    long long y_row, long long y_column,
    const int* __restrict__ row_readers, int row_pixels, const int* __restrict__ column_readers, int column_pixels, int most,
    int kh, int kw, int height, int width, int row_step, int column_step, int pixels_across, int pixel_tiles,
    int groups, int first_channel, int channels, int group_channels, int channels_per_entry, int outputs)
{
  typedef accumulator<T> A;
  constexpr int ACROSS = BP / MICRO, THREADS = BC / MICRO * ACROSS;
  __shared__ Tiles<A, BC, BP> tiles;
  __shared__ Place pixels[BP], places[BP];

  unsigned block = blockIdx.x;
  const unsigned channel_tiles = (channels - 1) / BC + 1;
  const int c0 = block % channel_tiles * BC;     block /= channel_tiles;
  const int pixel_tile = block % pixel_tiles;    block /= pixel_tiles;
  const int group = block % groups;              block /= groups;
  const long long sample = block;
  const int across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;

  const Grid grid = {height, width, row_step, column_step, pixels_across};
  for (int p = threadIdx.x; p < BP; p += THREADS) pixels[p] = pixel_of(grid, pixel_tile, p, BP);
  const InverseTable rows = {row_readers, row_pixels}, columns = {column_readers, column_pixels};
  int entries[MICRO];
#pragma unroll
  for (int r = 0; r < MICRO; ++r)
    entries[r] = (group * group_channels + first_channel + min(c0 + row_of(down, r), channels - 1)) / channels_per_entry;

  A totals[MICRO][MICRO], sums[MICRO][MICRO];
  clear_sums(totals);
  clear_sums(sums);
  for (int tap = 0; tap < kh * kw; ++tap) {
    const int m = tap / kw, n = tap - m * kw;
    const T* tap_w = w + m * w_m + n * w_n + group * w_group + c0 * w_channel;
    const T* first_g = g + g_base + sample * g_sample + group * g_group;
    for (int rank = 0; rank < most; ++rank) {
      bool any = false;
      __syncthreads();  // the pixels are complete, the last step and its places are read
      for (int p = threadIdx.x; p < BP; p += THREADS) {
        places[p] = reader(rows, columns, m, n, pixels[p], rank);
        any = any || places[p].i >= 0;
      }
      if (!__syncthreads_or(any)) break;
      back_project<T>(sums, tiles,
          [&](int c) { return c0 + c < channels ? tap_w + c * w_channel : nullptr; }, w_output,
          [&](int p) { return places[p].i < 0 ? nullptr : first_g + places[p].i * g_row + places[p].j * g_column; },
          g_output, outputs, down, across);
      multiply_factors<ACROSS>(totals, sums, places, d + d_base + sample * d_sample + m * d_m + n * d_n, entries,
                               d_entry, d_row, d_column, across);
    }
  }

#pragma unroll
  for (int q = 0; q < MICRO; ++q) {
    const Place pixel = pixels[column_of<A, ACROSS>(across, q)];
    if (pixel.i < 0) continue;
    T* to = y + y_base + sample * y_sample + group * y_group + pixel.i * y_row + pixel.j * y_column;
#pragma unroll
    for (int r = 0; r < MICRO; ++r)
      if (c0 + row_of(down, r) < channels) to[(c0 + row_of(down, r)) * y_channel] = Narrow<T>::from(totals[r][q]);
  }
}
