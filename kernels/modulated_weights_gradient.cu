// The gradient of equation (2) in its weights:
//
//     g_w[o,(m,n,c)] = Σ_{b,i,j} g[b,o,i,j] conj(d[m,n,b,e(c),i,j] x[b,c, rows[i*rs + m*rd], columns[j*cs + n*cd]])
//
// g (batch, C_out, H_out, W_out), the others as in modulated.cu.  This is a matrix product, (C_out x pixels) *
// (pixels x taps and channels of a group), with pixels of all samples counted as one long axis.  The
// right-hand matrix, the patches d*x, never exists in global memory: DEPTH pixels of it at a time are made in
// shared memory, for ROWS neighbouring (m,n,c).
//
// The result is small and the sum long.  So the pixels are split over blocks; each adds its part to its own
// slice of `partial` (splits, groups, outputs, rows), and the slices are added up afterwards, in order.
// Within a block too: where the outputs are few, SHARES sets of threads share the pixels of a step.
//
// Neighbouring threads load neighbouring pixels; tiles are transposed on the way, by runs of MICRO rows that
// are stored at once, into lines whose padding keeps neighbouring pixels in other banks.
#include "patch_rows.cuh"
#include "product.cuh"

constexpr int THREADS = 256;
constexpr int ROWS = 64;
template <class A> constexpr int BLOCKS = sizeof(A) < 8 ? 2 : 1;  // per multiprocessor, at least: bounds the registers
constexpr int STEPS_PER_SUM = 8;  // long sums are formed part by part
template <class A, int BO> constexpr int DEPTH = BO * sizeof(A) < 1024 ? 32 : 16;  // pixels of a step

// values[v] = conj(d*x) of a pixel in MICRO neighbouring rows; `d` is the pixel's first factor.
template <class T, class A>
__device__ __forceinline__ void make_patches(
    A (&values)[MICRO], const Row* rows, const T* d, const Seen<T>& image, const Pixel& pixel, A cval)
{
  const T* x = nullptr;
  A factor = number<A>(0, 0);
  Row row = rows[0];
#pragma unroll
  for (int v = 0; v < MICRO; ++v) {
    const Row last = row;
    row = rows[v];
    if (v == 0 || row.down != last.down || row.across != last.across)  // another tap
      x = image.at(pixel.i, pixel.j, row.down, row.across);
    if (v == 0 || row.d != last.d) factor = widen(d[row.d]);
    values[v] = conjugate(multiply(factor, x == nullptr ? cval : widen(x[row.x])));
  }
}

// values[v] = g of a pixel in MICRO neighbouring outputs, of which `outputs` exist.
template <class T, class A>
__device__ __forceinline__ void load_outputs(A (&values)[MICRO], const T* g, long long g_channel, int outputs)
{
#pragma unroll
  for (int v = 0; v < MICRO; ++v) values[v] = v < outputs ? widen(g[v * g_channel]) : number<A>(0, 0);
}

// Add up what the sets of threads have summed, in order, into the first set's totals.
template <int SHARES, int POSITIONS, class A>
__device__ __forceinline__ void join_shares(A (&totals)[MICRO][MICRO], A* memory, int share, int position)
{
  for (int other = 1; other < SHARES; ++other) {
    __syncthreads();  // the previous values are read
#pragma unroll
    for (int e = 0; e < MICRO * MICRO; ++e)
      if (share == other) memory[e * POSITIONS + position] = totals[e / MICRO][e % MICRO];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < MICRO * MICRO; ++e)
      if (share == 0)
        totals[e / MICRO][e % MICRO] = add(totals[e / MICRO][e % MICRO], memory[e * POSITIONS + position]);
  }
}

// tile[p][…] = N values for pixel p of a step, by runs of MICRO: make(first, values) for `count` of them, 0 for others.
template <int N, int STEP, class A, class Make>
__device__ __forceinline__ void load_runs(A (&tile)[STEP][N + WIDE<A>], int count, Make make)
{
  for (int run = threadIdx.x / STEP; run < N / MICRO; run += THREADS / STEP) {
    __align__(16) A values[MICRO];
#pragma unroll
    for (int v = 0; v < MICRO; ++v) values[v] = number<A>(0, 0);
    if (run * MICRO < count) make(run * MICRO, values);
    copy_run<MICRO>(&tile[threadIdx.x % STEP][run * MICRO], values);
  }
}

// grid: one block per ROWS (m,n,c), BO outputs, group and split (the rows fastest)
template <class T, int BO>
__global__ void __launch_bounds__(THREADS, BLOCKS<accumulator<T>>)
modulated_weights_gradient(
    const T* __restrict__ g, long long g_base, long long g_sample, long long g_channel, long long g_row, long long g_column,
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const T* __restrict__ d, long long d_base, long long d_sample,
    long long d_m, long long d_n, long long d_entry, long long d_row, long long d_column,
    accumulator<T>* __restrict__ partial,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int kh, int kw, int height, int width, int samples, int groups, int channels, int outputs, int group_outputs,
    int channels_per_entry, int splits, double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  constexpr int STEP = DEPTH<A, BO>, ACROSS = ROWS / MICRO, POSITIONS = BO / MICRO * ACROSS, SHARES = THREADS / POSITIONS;
  __shared__ __align__(16) A patches[STEP][ROWS + WIDE<A>];
  __shared__ __align__(16) A gradients[STEP][BO + WIDE<A>];
  __shared__ Row table[ROWS];

  const int all_rows = kh * kw * channels;
  unsigned block = blockIdx.x;
  const unsigned row_tiles = (all_rows - 1) / ROWS + 1, output_tiles = (outputs - 1) / BO + 1;
  const int row0 = block % row_tiles * ROWS;   block /= row_tiles;
  const int o0 = block % output_tiles * BO;    block /= output_tiles;
  const int group = block % groups;            block /= groups;
  const int split = block;

  if (threadIdx.x < ROWS) {
    const Strides steps = {d_m, d_n, d_entry, x_channel, rd, cd};
    table[threadIdx.x] = row_at(row0 + threadIdx.x, all_rows, kw, channels, group * channels, channels_per_entry, steps);
  }
  const T* group_g = g + g_base + ((long long)group * group_outputs + o0) * g_channel;
  const int position = threadIdx.x % POSITIONS, share = threadIdx.x / POSITIONS;
  const int across = position % ACROSS, down = position / ACROSS;
  const int pixels = samples * height * width, each = ((pixels - 1) / (splits * STEP) + 1) * STEP;
  const int first = min(split * each, pixels), last = min(first + each, pixels);

  A totals[MICRO][MICRO], sums[MICRO][MICRO];
  clear_sums(totals);
  clear_sums(sums);
  for (int at = first, steps = 1; at < last; at += STEP, ++steps) {
    const Pixel pixel = pixel_at(at + threadIdx.x % STEP, last, height, width);
    const Seen<T> image = {x + x_base + pixel.sample * x_sample, x_row, x_column, rows, rs, columns, cs};
    const T* pixel_d = d + d_base + pixel.sample * d_sample + pixel.i * d_row + pixel.j * d_column;
    const T* pixel_g = group_g + pixel.sample * g_sample + pixel.i * g_row + pixel.j * g_column;
    __syncthreads();  // the table is complete, the previous step is read
    load_runs<ROWS>(patches, pixel.inside ? all_rows - row0 : 0, [&](int row, A (&values)[MICRO]) {
      make_patches(values, table + row, pixel_d, image, pixel, number<A>(cval_re, cval_im));
    });
    load_runs<BO>(gradients, pixel.inside ? outputs - o0 : 0, [&](int o, A (&values)[MICRO]) {
      load_outputs(values, pixel_g + o * g_channel, g_channel, outputs - o0 - o);
    });
    __syncthreads();
    constexpr int SHARE = STEP / SHARES;
    multiply_tiles<ACROSS>(sums, gradients + share * SHARE, patches + share * SHARE, SHARE, down, across);
    if (steps % STEPS_PER_SUM == 0) close_sums(totals, sums);
  }
  close_sums(totals, sums);
  join_shares<SHARES, POSITIONS>(totals, &patches[0][0], share, position);
  if (share > 0) return;

#pragma unroll
  for (int r = 0; r < MICRO; ++r) {
    const int o = o0 + row_of(down, r);
    A* to = partial + (((long long)split * groups + group) * outputs + o) * all_rows;
#pragma unroll
    for (int q = 0; q < MICRO; ++q) {
      const int row = row0 + column_of<A, ACROSS>(across, q);
      if (o < outputs && row < all_rows) to[row] = add(to[row], totals[r][q]);
    }
  }
}
