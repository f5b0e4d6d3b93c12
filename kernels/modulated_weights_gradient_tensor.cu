// The gradient of equation (2) in its weights on tensor cores, for float16, bfloat16 and, as TF32, float32:
//
//     g_w[o,(m,n,c)] = Σ_{b,i,j} g[b,o,i,j] d[m,n,b,e(c),i,j] x[b,c, rows[i*rs + m*rd], columns[j*cs + n*cd]]
//
// with operands and `partial` as in modulated_weights_gradient.cu.  K runs over the pixels of all samples: a line of
// tensor.cuh holds PIXELS pixels of an output, or of a row (m,n,c) of the patches.  A thread makes one pixel of
// some lines; neighbouring threads read neighbouring pixels.  It requests values for the next step before
// the products of the present one.  As tensor cores cut sums off, these are added to `partial` part by part.
#include "patch_rows.cuh"
#include "tensor.cuh"

constexpr int LONGEST = 1 << 15;  // pixels of a part
template <class T> constexpr int LINE_PIXELS = CHUNKS * CHUNK<T>;

__device__ __forceinline__ __half product_of(__half a, __half b) { return __hmul(a, b); }
__device__ __forceinline__ __nv_bfloat16 product_of(__nv_bfloat16 a, __nv_bfloat16 b) { return __hmul(a, b); }
__device__ __forceinline__ float product_of(float a, float b) { return __uint_as_float(to_tf32(a * b)); }

// One pixel of COUNT lines of g, every SETS-th of ROWS, and the same of the patches.
template <class T, int THREADS, int ROWS, int COLUMNS> struct PixelOfLines {
  static constexpr int PIXELS = LINE_PIXELS<T>, SETS = THREADS / PIXELS;
  static constexpr int OUTPUTS = ROWS / SETS / 2, PATCHES = COLUMNS / SETS / 2;  // half of the lines at a time
  T gradients[OUTPUTS], values[PATCHES], factors[PATCHES];

  static __device__ __forceinline__ int line(int half, int count, int v)
  {
    return (half * count + v) * SETS + threadIdx.x / PIXELS;
  }

  __device__ __forceinline__ void fetch(
      int half, const T* g, long long g_channel, int outputs, const T* d, const Seen<T>& image, const Row* rows,
      const Pixel& pixel, T cval)
  {
    const T zero = Narrow<T>::from(0);
#pragma unroll
    for (int v = 0; v < OUTPUTS; ++v) {
      const int o = line(half, OUTPUTS, v);
      gradients[v] = pixel.inside && o < outputs ? g[o * g_channel] : zero;
    }
    const T* x = nullptr;
    Row last = {0, 0, 0, 0};
#pragma unroll
    for (int v = 0; v < PATCHES; ++v) {
      const Row row = rows[line(half, PATCHES, v)];
      if (v == 0 || row.down != last.down || row.across != last.across)  // another tap
        x = pixel.inside ? image.at(pixel.i, pixel.j, row.down, row.across) : nullptr;
      values[v] = x == nullptr ? cval : x[row.x];
      factors[v] = v > 0 && row.d == last.d ? factors[v - 1] : pixel.inside ? d[row.d] : zero;
      if (!pixel.inside) values[v] = zero;
      last = row;
    }
  }

  __device__ __forceinline__ void store(int half, uint4* outputs, uint4* patches) const
  {
    const int pixel = threadIdx.x % PIXELS;
#pragma unroll
    for (int v = 0; v < OUTPUTS; ++v) element(outputs, line(half, OUTPUTS, v), pixel) = gradients[v];
#pragma unroll
    for (int v = 0; v < PATCHES; ++v) element(patches, line(half, PATCHES, v), pixel) = product_of(values[v], factors[v]);
  }

  static __device__ __forceinline__ T& element(uint4* lines, int line, int pixel)
  {
    return reinterpret_cast<T*>(lines + chunk_at(line, pixel / CHUNK<T>))[pixel % CHUNK<T>];
  }
};

// to[output][row] += sums
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void add_sums(float* to, const Sums<ROWS, COLUMNS>& sums, int outputs, int rows, int all_rows)
{
  typedef Tiling<ROWS, COLUMNS> Tiles;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int o = warp / Tiles::ACROSS * Tiles::WARP_ROWS + lane / 4;
  const int row = warp % Tiles::ACROSS * Tiles::WARP_PIXELS + lane % 4 * 2;
#pragma unroll
  for (int f = 0; f < Tiles::WARP_ROWS / 16; ++f)
#pragma unroll
    for (int p = 0; p < Tiles::WARP_PIXELS / 8; ++p)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int down = o + f * 16 + r / 2 * 8, across = row + p * 8 + r % 2;
        if (down < outputs && across < rows) to[(long long)down * all_rows + across] += sums.v[f][p][r];
      }
}

// grid: one block per COLUMNS rows (m,n,c), ROWS outputs, group and split (the rows fastest)
template <class T, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(COLUMNS, 2)
modulated_weights_gradient_tensor(
    const T* __restrict__ g, long long g_base, long long g_sample, long long g_channel, long long g_row, long long g_column,
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const T* __restrict__ d, long long d_base, long long d_sample,
    long long d_m, long long d_n, long long d_entry, long long d_row, long long d_column,
    float* __restrict__ partial,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int kh, int kw, int height, int width, int samples, int groups, int channels, int outputs, int group_outputs,
    int channels_per_entry, int splits, double cval_re, double cval_im)
{
  __shared__ uint4 gradients[PATCH_STAGES][ROWS * CHUNKS], patches[PATCH_STAGES][COLUMNS * CHUNKS];
  __shared__ Row table[COLUMNS];
  constexpr int PIXELS = LINE_PIXELS<T>;

  const int all_rows = kh * kw * channels;
  unsigned block = blockIdx.x;
  const unsigned row_tiles = (all_rows - 1) / COLUMNS + 1, output_tiles = (outputs - 1) / ROWS + 1;
  const int row0 = block % row_tiles * COLUMNS;  block /= row_tiles;
  const int o0 = block % output_tiles * ROWS;    block /= output_tiles;
  const int group = block % groups;              block /= groups;
  const int split = block;

  const Strides steps = {d_m, d_n, d_entry, x_channel, rd, cd};
  table[threadIdx.x] = row_at(row0 + threadIdx.x, all_rows, kw, channels, group * channels, channels_per_entry, steps);
  __syncthreads();
  const T* group_g = g + g_base + ((long long)group * group_outputs + o0) * g_channel;
  float* to = partial + (((long long)split * groups + group) * outputs + o0) * all_rows + row0;
  const int pixels = samples * height * width, each = ((pixels - 1) / (splits * PIXELS) + 1) * PIXELS;
  const int first = min(split * each, pixels), last = min(first + each, pixels);

  PixelOfLines<T, COLUMNS, ROWS, COLUMNS> mine;
  Sums<ROWS, COLUMNS> sums = {};
  int stage = 0;
  for (int at = first - PIXELS; at < last; at += PIXELS, stage ^= 1) {
    const bool present = at >= first, more = at + PIXELS < last;
    const Pixel pixel = pixel_at(at + PIXELS + threadIdx.x % PIXELS, last, height, width);
    const Seen<T> image = {x + x_base + pixel.sample * x_sample, x_row, x_column, rows, rs, columns, cs};
    const T* pixel_d = d + d_base + pixel.sample * d_sample + pixel.i * d_row + pixel.j * d_column;
    const T* pixel_g = group_g + pixel.sample * g_sample + pixel.i * g_row + pixel.j * g_column;
    __syncthreads();  // this step's lines are complete, the previous step is read
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (more) mine.fetch(half, pixel_g, g_channel, outputs - o0, pixel_d, image, table, pixel, Narrow<T>::from((float)cval_re));
      if (present) multiply_lines<T>(sums, gradients[stage], patches[stage], half * AT_ONCE);
      if (more) mine.store(half, gradients[stage ^ 1], patches[stage ^ 1]);
    }
    if (!more || (at - first + PIXELS) % LONGEST == 0) {
      add_sums(to, sums, outputs - o0, all_rows - row0, all_rows);
      sums = {};
    }
  }
}
