// Equation (2) on tensor cores, for float16, bfloat16 and, as TF32, float32:
//
//     y[b,o,i,j] = Σ_{m,n,c} w[o,(m,n),c] d[m,n,b,e(c),i,j] x[b,c, rows[i*rs + m*rd], columns[j*cs + n*cd]]
//
// x, d, y and the index tables are as in modulated.cu; w (C_out, kh*kw, padded), without gaps, holds C_in/groups
// channels and zeros after them.  The channels of a chunk share an entry of d.
//
// A block makes up to ROWS outputs of PIXELS pixels, so that a patch serves all of them; see tensor.cuh.
#include "tensor.cuh"
#include "window.cuh"

// grid: one block per sample, group, ROWS outputs of the group and PIXELS pixels (the outputs fastest)
template <class T, int ROWS, int PIXELS>
__global__ void __launch_bounds__(PIXELS, (Tiling<ROWS, PIXELS>::BLOCKS))
modulated_correlate_tensor(
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const T* __restrict__ w, int padded,
    const T* __restrict__ d, long long d_base, long long d_sample,
    long long d_m, long long d_n, long long d_entry, long long d_row, long long d_column,
    T* __restrict__ y, long long y_base, long long y_sample, long long y_channel, long long y_row, long long y_column,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int kh, int kw, int height, int width, int groups, int channels, int outputs, int channels_per_entry, int runs,
    double cval_re, double cval_im)
{
  extern __shared__ __align__(16) uint4 memory[];
  unsigned block = blockIdx.x;
  const unsigned output_tiles = (outputs - 1) / ROWS + 1, pixel_tiles = (height * width - 1) / PIXELS + 1;
  const int o0 = block % output_tiles * ROWS;                  block /= output_tiles;
  const int p = block % pixel_tiles * PIXELS + threadIdx.x;    block /= pixel_tiles;
  const int group = block % groups;                            block /= groups;
  const long long sample = block;

  const int i = p / width, j = p - i * width, first_channel = group * channels;
  const long long first_output = (long long)group * outputs + o0;
  const bool exists = p < height * width;
  const Seen<T> image = {x + x_base + sample * x_sample + first_channel * x_channel, x_row, x_column,
                         rows, rs, columns, cs};
  const T* factors = d + d_base + sample * d_sample + i * d_row + j * d_column;
  const Matrix<T> matrix = {w + first_output * kh * kw * padded, outputs - o0, kh * kw, padded, nullptr};
  const Channels<T> all = {x_channel, runs != 0, channels, padded, d_entry, first_channel, channels_per_entry,
                           Narrow<T>::from((float)cval_re)};
  Sums<ROWS, PIXELS> sums;
  sum_products<T>(sums, memory, matrix, all, kh * kw, [&](int tap) {
    const int m = tap / kw, n = tap - m * kw;
    return exists && m < kh ? Source<T>{image.at(i, j, m * rd, n * cd), factors + (m * d_m + n * d_n)}
                            : Source<T>{nullptr, nullptr};
  });
  store_sums(sums, memory, exists ? y + y_base + sample * y_sample + first_output * y_channel + i * y_row + j * y_column : nullptr,
             y_channel, outputs - o0);
}
