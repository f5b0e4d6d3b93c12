// The gradient of equation (2) in its image on tensor cores, for float16, bfloat16 and, as TF32, float32:
//
//     g_x[b,c,h,w] = Σ_{m,n} Σ_{(i,j) that read (h,w) through (m,n)} Σ_o w[c,(m,n),o] d[m,n,b,i,j] g[b,o,i,j]
//
// g, d, g_x and the inverse tables are as in modulated_input_gradient.cu; w (C_in, kh*kw, padded), without gaps, holds the
// C_out/groups outputs of a group and zeros after them.  The channels of a group share an entry of d, so that
// d*g is a patch like d*x of the forward product: see tensor.cuh.
//
// A block goes through the passes, taps and ranks of their readers, in which any of its pixels is read.
#include "readers.cuh"
#include "tensor.cuh"

// List the passes of a block in shared memory; returns their number, and whether the thread's pixel is read in all.
__device__ __forceinline__ int list_passes(
    Pass* list, const InverseTable& rows, const InverseTable& columns, int kh, int kw, int most, const Place& pixel,
    bool& in_all)
{
  int count = 0;
  in_all = true;
  for (int tap = 0; tap < kh * kw; ++tap)
    for (int rank = 0; rank < most; ++rank) {
      const bool read = reader(rows, columns, tap / kw, tap % kw, pixel, rank).i >= 0;
      if (!__syncthreads_or(read)) break;
      in_all = in_all && read;
      if (threadIdx.x == 0) list[count] = {(short)tap, (short)rank};
      ++count;
    }
  __syncthreads();
  return count;
}

// The sum of a row for the thread's pixel alone, without the passes in which it is not read.
template <class T, class Find>
__device__ __forceinline__ float sum_alone(
    const Matrix<T>& matrix, int row, int passes, int outputs, long long g_output, const Find& find)
{
  float sum = 0;
#pragma unroll 1
  for (int pass = 0; pass < passes; ++pass) {
    const Source<T> source = find(pass);
    if (source.values == nullptr) continue;
    const T* w = matrix.first + ((long long)row * matrix.taps + matrix.order[pass].tap) * matrix.padded;
    const float factor = widen(*source.factors);
#pragma unroll 1
    for (int o = 0; o < outputs; ++o) sum = multiply_add(widen(w[o]), widen(source.values[o * g_output]) * factor, sum);
  }
  return sum;
}

// grid: one block per ROWS channels, PIXELS pixels, group and sample (the channels fastest)
template <class T, int ROWS, int PIXELS>
__global__ void __launch_bounds__(PIXELS, (Tiling<ROWS, PIXELS>::BLOCKS))
modulated_input_gradient_tensor(
    const T* __restrict__ g, long long g_base, long long g_sample, long long g_group, long long g_output,
    long long g_row, long long g_column,
    const T* __restrict__ w, int padded,
    const T* __restrict__ d, long long d_base, long long d_sample,
    long long d_m, long long d_n, long long d_entry, long long d_row, long long d_column,
    T* __restrict__ y, long long y_base, long long y_sample, long long y_group, long long y_channel,
    long long y_row, long long y_column,
    const int* __restrict__ row_readers, int row_pixels, const int* __restrict__ column_readers, int column_pixels, int most,
    int kh, int kw, int height, int width, int row_step, int column_step, int pixels_across, int pixel_tiles,
    int groups, int first_channel, int channels, int group_channels, int channels_per_entry, int outputs, int runs)
{
  extern __shared__ __align__(16) uint4 memory[];
  unsigned block = blockIdx.x;
  const unsigned channel_tiles = (channels - 1) / ROWS + 1;
  const int c0 = block % channel_tiles * ROWS;   block /= channel_tiles;
  const int pixel_tile = block % pixel_tiles;    block /= pixel_tiles;
  const int group = block % groups;              block /= groups;
  const long long sample = block;

  const Place pixel = pixel_of({height, width, row_step, column_step, pixels_across}, pixel_tile, threadIdx.x, PIXELS);
  const InverseTable rows = {row_readers, row_pixels}, columns = {column_readers, column_pixels};
  Pass* order = reinterpret_cast<Pass*>(memory + LINES<ROWS, PIXELS> * CHUNKS);
  bool in_all;
  const int passes = list_passes(order, rows, columns, kh, kw, most, pixel, in_all);

  const T* group_g = g + g_base + sample * g_sample + group * g_group;
  const T* factors = d + d_base + sample * d_sample + (group * group_channels + first_channel) / channels_per_entry * d_entry;
  const Matrix<T> matrix = {w + ((long long)group * channels + c0) * kh * kw * padded, channels - c0, kh * kw, padded, order};
  const Channels<T> all = {g_output, runs != 0, outputs, padded, 0, 0, 1, Narrow<T>::from(0)};
  Sums<ROWS, PIXELS> sums;
  const auto find = [&](int pass) {
    Source<T> source = {nullptr, nullptr};
    if (pass >= passes) return source;
    const int m = order[pass].tap / kw, n = order[pass].tap - m * kw;
    const Place place = reader(rows, columns, m, n, pixel, order[pass].rank);
    if (place.i >= 0) source = {group_g + (place.i * g_row + place.j * g_column),
                                factors + (m * d_m + n * d_n + place.i * d_row + place.j * d_column)};
    return source;
  };
  sum_products<T>(sums, memory, matrix, all, passes, find);
  T* to = y + y_base + sample * y_sample + group * y_group + c0 * y_channel + pixel.i * y_row + pixel.j * y_column;
  store_sums(sums, memory, pixel.i < 0 ? nullptr : to, y_channel, channels - c0);
  if (in_all || pixel.i < 0) return;
  // A pass in which the pixel is not read has added 0*w, which is NaN where w is not finite.
#pragma unroll 1
  for (int row = 0; row < min(ROWS, channels - c0); ++row)
    if (isnan(widen(to[row * y_channel])))
      to[row * y_channel] = Narrow<T>::from(sum_alone(matrix, row, passes, outputs, g_output, find));
}
