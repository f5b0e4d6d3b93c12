// Equation (2), a kernel shared by all pixels and modulated at each:
//
//     y[b,o,i,j] = Σ_{m,n,c} w[m,n,c,o] d[m,n,b,e(c),i,j] x[b,c, rows[i*rs + m*rd], columns[j*cs + n*cd]]
//
// x (batch, C_in, H, W), w (kh, kw, C_in/groups, C_out), d (kh, kw, batch, G, H_out, W_out) with the
// entry e(c) = c / (C_in/G), y (batch, C_out, H_out, W_out), all of any strides (counted in elements).
// An index of -1 in `rows` or `columns` stands for `cval`.  Outputs read the channels of their group.
//
// For a block of pixels this is a matrix product, (C_out x K) * (K x pixels), K running over (n, c) for
// one row m of taps after the other.  The right-hand matrix, the patches d*x, never exists in global
// memory: DEPTH rows of it at a time are made in shared memory.  A block makes BO outputs of BP pixels,
// a thread MICRO x MICRO of them.
#include "product.cuh"

constexpr int DEPTH = 8;

// One step of the sum: rows k0 … k0+count-1 of K, in row m of the taps; k = n*channels + c.
struct Step { int m, k0, count, channels; };

// What the patches of one sample and group are made from.
template <class T> struct Patches {
  const T* x; long long x_channel, x_row, x_column;
  const T* d; long long d_m, d_n, d_entry, d_row, d_column;
  const long long* rows; int rs, rd;
  const long long* columns; int cs, cd;
  int first_channel, channels_per_entry;
  int first_pixel, pixels, width;
};

// patches[k][p] = d * x for the pixels p of a block and the rows k of a step; 0 beyond the image.
template <int THREADS, class T, class A, int BP>
__device__ __forceinline__ void make_patches(A (&patches)[DEPTH][BP], const Patches<T>& from, const Step& step, A cval)
{
#pragma unroll 2
  for (int e = threadIdx.x; e < step.count * BP; e += THREADS) {
    const int p = from.first_pixel + e % BP, k = step.k0 + e / BP, n = k / step.channels;
    const int channel = from.first_channel + k - n * step.channels;
    A patch = number<A>(0, 0);
    if (p < from.pixels) {
      const int i = p / from.width, j = p - i * from.width;
      const int entry = channel / from.channels_per_entry;
      const long long row = from.rows[i * from.rs + step.m * from.rd], column = from.columns[j * from.cs + n * from.cd];
      const A factor = widen(from.d[step.m * from.d_m + n * from.d_n + entry * from.d_entry + i * from.d_row + j * from.d_column]);
      const A value = row < 0 || column < 0 ? cval
          : widen(from.x[channel * from.x_channel + row * from.x_row + column * from.x_column]);
      patch = multiply(factor, value);
    }
    patches[e / BP][e % BP] = patch;
  }
}

// matrix[k][o] = w for the outputs of a block; 0 beyond the group's outputs.
template <int THREADS, class T, class A, int BO>
__device__ __forceinline__ void load_matrix(
    A (&matrix)[DEPTH][BO], const Step& step, const T* w, long long w_n, long long w_channel, long long w_output, int outputs)
{
#pragma unroll 2
  for (int e = threadIdx.x; e < step.count * BO; e += THREADS) {
    const int o = e % BO, k = step.k0 + e / BO, n = k / step.channels, c = k - n * step.channels;
    matrix[e / BO][o] = o < outputs ? widen(w[n * w_n + c * w_channel + o * w_output]) : number<A>(0, 0);
  }
}

// grid: one block per sample, group, BO outputs of the group and BP pixels (the outputs fastest)
template <class T, int BO, int BP>
__global__ void __launch_bounds__(BO * BP / (MICRO * MICRO), 1)
modulated_correlate(
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const T* __restrict__ w, long long w_m, long long w_n, long long w_channel, long long w_output,
    const T* __restrict__ d, long long d_base, long long d_sample,
    long long d_m, long long d_n, long long d_entry, long long d_row, long long d_column,
    T* __restrict__ y, long long y_base, long long y_sample, long long y_channel, long long y_row, long long y_column,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int kh, int kw, int height, int width, int groups, int channels, int outputs, int channels_per_entry,
    double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  constexpr int THREADS = BO * BP / (MICRO * MICRO), ACROSS = BP / MICRO;
  __shared__ __align__(16) A patches[DEPTH][BP];
  __shared__ __align__(16) A matrix[DEPTH][BO];

  unsigned block = blockIdx.x;
  const unsigned output_tiles = (outputs - 1) / BO + 1, pixel_tiles = (height * width - 1) / BP + 1;
  const int o0 = block % output_tiles * BO;  block /= output_tiles;
  const int p0 = block % pixel_tiles * BP;   block /= pixel_tiles;
  const int group = block % groups;          block /= groups;
  const long long sample = block;

  const Patches<T> from = {
    x + x_base + sample * x_sample, x_channel, x_row, x_column,
    d + d_base + sample * d_sample, d_m, d_n, d_entry, d_row, d_column,
    rows, rs, rd, columns, cs, cd, group * channels, channels_per_entry, p0, height * width, width};
  const long long first_output = (long long)group * outputs + o0;
  const T* group_w = w + first_output * w_output;
  const int across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;

  A totals[MICRO][MICRO], sums[MICRO][MICRO];
  clear_sums(totals);
  clear_sums(sums);

  for (int m = 0; m < kh; ++m) {
    for (int k0 = 0; k0 < kw * channels; k0 += DEPTH) {
      const Step step = {m, k0, min(DEPTH, kw * channels - k0), channels};
      __syncthreads();  // the previous step is read
      make_patches<THREADS>(patches, from, step, number<A>(cval_re, cval_im));
      load_matrix<THREADS>(matrix, step, group_w + m * w_m, w_n, w_channel, w_output, outputs - o0);
      __syncthreads();
      multiply_tiles<ACROSS>(sums, matrix, patches, step.count, down, across);
    }
    close_sums(totals, sums);  // long windows are summed row by row
  }

#pragma unroll
  for (int q = 0; q < MICRO; ++q) {
    const int p = p0 + column_of<A, ACROSS>(across, q), i = p / width, j = p - i * width;
    if (p >= height * width) continue;
    T* to = y + y_base + sample * y_sample + i * y_row + j * y_column;
#pragma unroll
    for (int r = 0; r < MICRO; ++r) {
      const int o = row_of(down, r);
      if (o0 + o < outputs) to[(first_output + o) * y_channel] = Narrow<T>::from(totals[r][q]);
    }
  }
}
