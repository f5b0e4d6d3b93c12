// The gradient of equation (2) in its modulation on tensor cores, for float16, bfloat16 and, as TF32, float32:
//
//     g_d[m,n,b,e,i,j] = Σ_{c in e} x[b,c, rows[i*rs + m*rd], columns[j*cs + n*cd]] Σ_o w[(m,n),c,o] g[b,o,i,j]
//
// with operands and result as in modulated_modulation_gradient.cu; w (kh, kw, C_in, padded), without gaps, holds the
// C_out/groups outputs of a channel's group and zeros after them.
//
// A block owns one tap and entry of PIXELS pixels.  The inner sum is the product of tensor.cuh, for ROWS channels
// of the entry at a time, with the incoming gradient itself for patches; each thread then multiplies the
// sums of its pixel by x, and adds them up over all channels, and samples that share the modulation.
#include "tensor.cuh"
#include "window.cuh"

// grid: one block per entry and tap of a family, PIXELS pixels, family, sample and split of what is `shared`
template <class T, int ROWS, int PIXELS>
__global__ void __launch_bounds__(PIXELS, (Tiling<ROWS, PIXELS>::BLOCKS))
modulated_modulation_gradient_tensor(
    const T* __restrict__ g, long long g_base, long long g_sample, long long g_shared, long long g_group,
    long long g_output, long long g_row, long long g_column,
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_shared,
    long long x_channel, long long x_row, long long x_column,
    const T* __restrict__ w, int padded,
    float* __restrict__ y, int add_to, long long y_base, long long y_sample, long long y_split,
    long long y_m, long long y_n, long long y_entry, long long y_row, long long y_column,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int kh, int kw, int height, int width, int samples, int shared, int splits,
    int families, int entries, int channels_per_entry, int channels, int outputs, int runs,
    double cval_re, double cval_im)
{
  extern __shared__ __align__(16) uint4 memory[];
  __shared__ T one;
  unsigned block = blockIdx.x;
  const unsigned slots = kh * kw * entries, pixel_tiles = (height * width - 1) / PIXELS + 1;
  const int slot = block % slots;                            block /= slots;
  const int p = block % pixel_tiles * PIXELS + threadIdx.x;  block /= pixel_tiles;
  const int family = block % families;                       block /= families;
  const long long sample = block % samples;                  block /= samples;
  const int split = block, tap = slot / entries, m = tap / kw, n = tap - m * kw;
  const int entry = family * entries + slot - tap * entries;
  const int first_channel = entry * channels_per_entry, last_channel = first_channel + channels_per_entry;
  const int all_channels = families * entries * channels_per_entry, i = p / width, j = p - i * width;
  const bool exists = p < height * width;

  if (threadIdx.x == 0) one = Narrow<T>::from(1);
  __syncthreads();
  const Channels<T> all = {g_output, runs != 0, outputs, padded, 0, 0, 1, Narrow<T>::from(0)};
  float total = 0;
  const int each = (shared - 1) / splits + 1;
  for (int b = split * each; b < min(shared, (split + 1) * each); ++b) {
    const T* pixel_g = g + g_base + sample * g_sample + b * g_shared + i * g_row + j * g_column;
    const Seen<T> image = {x + x_base + sample * x_sample + b * x_shared, x_row, x_column, rows, rs, columns, cs};
    const T* pixel_x = exists ? image.at(i, j, m * rd, n * cd) : nullptr;
    for (int c = first_channel; c < last_channel;) {
      const int group = c / channels, count = min(ROWS, min(last_channel, (group + 1) * channels) - c);
      const Matrix<T> matrix = {w + ((long long)tap * all_channels + c) * padded, count, 1, padded, nullptr};
      Sums<ROWS, PIXELS> sums;
      sum_products<T>(sums, memory, matrix, all, 1, [&](int pass) {
        return exists && pass == 0 ? Source<T>{pixel_g + group * g_group, &one} : Source<T>{nullptr, nullptr};
      });
      for_each_row<float>(sums, memory, count, [&](int row, float sum) {
        const float value = pixel_x == nullptr ? (float)cval_re : widen(pixel_x[(c + row) * x_channel]);
        total = multiply_add(value, sum, total);
      });
      c += count;
      __syncthreads();  // the sums are used
    }
  }
  if (!exists) return;
  float* to = y + y_base + sample * y_sample + split * y_split + m * y_m + n * y_n + entry * y_entry + i * y_row + j * y_column;
  *to = add_to ? add(*to, total) : total;
}
