// The adjoint of Gaussians that differ from output to output:
//
//     x[g,h,w] = Σ z[g,i,j] k[m,n,g,i,j] / Σ_{m,n} k[m,n,g,i,j]   over all outputs (i,j) and taps (m,n) that read (h,w)
//
// z, maps of σ and of angles (groups, H_in, W_in), x (groups, H, W), all of any strides (counted in elements);
// `inverse` is what gaussian_norm writes, 1 / Σ k.  An output reads (h,w) where it is centred, m rows and n columns
// away; a boundary mode that folds reads a pixel at several centres.  `table` lists, for each axis,
//
//     starts (pixels + 1)     where the centres of each pixel are
//     tiles (4 per SIDE pixels)  where its candidates and its intervals are: first, last + 1, first, last + 1
//     numbers (outputs)       of the outputs: their places
//     the centres, candidates (outputs that the window may reach from) and intervals (of centres: first, last)
//
// with places counted from the table's start.  A block gathers the outputs that reach its SIDE x SIDE pixels, in
// their order, LISTED at most, and adds what they give: for axis-aligned kernels that is Σ f b, where f holds the
// weight of each output in each row of pixels and b that in each column, both made once for the block.
#include "gaussian.cuh"

constexpr int THREADS = 128;
constexpr int SIDE = 32;
constexpr int LISTED = 256, TOGETHER = 64;  // outputs; TOGETHER of them have their weights in shared memory
constexpr int ROWS = 2, COLUMNS = 4;        // pixels of a thread

// One axis, as a block sees it.
struct Axis {
  const int* table; int pixels, first_candidate, last_candidate, first_interval, last_interval; const int* numbers;
  __device__ __forceinline__ bool meets(int output, int radius) const
  {
    for (int at = first_interval; at < last_interval; at += 2)
      if (output + radius >= table[at] && output - radius <= table[at + 1]) return true;
    return false;
  }
};

__device__ __forceinline__ Axis axis_of(const int* table, int pixels, int tile)
{
  const int tiles = (pixels - 1) / SIDE + 1;
  const int* plan = table + pixels + 1 + 4 * tile;
  return {table, pixels, plan[0], plan[1], plan[2], plan[3], table + pixels + 1 + 4 * tiles};
}

// Where a pixel is read: mostly at one centre.
struct Centres {
  const int* table; int first, next, last;
  bool exist;
  // f(centre) for each
  template <class F> __device__ __forceinline__ void each(F f) const
  {
    if (!exist) return;
    int centre = first;
    for (int at = next;; ++at) {
      f(centre);
      if (at >= last) return;
      centre = table[at];
    }
  }
};

__device__ __forceinline__ Centres centres_of(const Axis& axis, int pixel)
{
  const bool inside = pixel < axis.pixels;
  const int start = inside ? axis.table[pixel] : 0, last = inside ? axis.table[pixel + 1] : 0;
  const bool exist = start < last;
  return {axis.table, exist ? axis.table[start] : 0, start + 1, last, exist};
}

// An output: where it is centred, its kernel, and z / Σ k.
template <class A, bool TURNED> struct Output { int row, column; Shape<A, TURNED> shape; A value; };

// Add what TOGETHER outputs at a time give to the pixels of a thread.
template <class A> struct AlignedGather {
  A down[TOGETHER][SIDE], across[TOGETHER][SIDE];

  __device__ __forceinline__ void fill(const Output<A, false>* list, int count, const Centres& row, const Centres& column, bool wild)
  {
    const int pixel = threadIdx.x % SIDE;
    for (int k = threadIdx.x / SIDE; k < count; k += THREADS / SIDE) {
      const Output<A, false>& output = list[k];
      A f = 0, b = 0;
      bool reached = false, beside = false;
      row.each([&](int centre) {
        const int m = centre - output.row;
        if (abs(m) > output.shape.rows) return;
        f += output.shape.along_rows((A)m);
        reached = true;
      });
      column.each([&](int centre) {
        const int n = centre - output.column;
        if (abs(n) > output.shape.columns) return;
        b += output.shape.along_columns((A)n);
        beside = true;
      });
      down[k][pixel] = reached ? f * output.value : 0;
      across[k][pixel] = beside || !wild ? b : -1;
    }
  }

  __device__ __forceinline__ void add(A (&sums)[ROWS][COLUMNS], int count, bool wild) const
  {
    const int column = threadIdx.x % (SIDE / COLUMNS) * COLUMNS, row = threadIdx.x / (SIDE / COLUMNS) * ROWS;
#pragma unroll 4
    for (int k = 0; k < count; ++k)
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const A b = across[k][column + c];
        if (!wild || b >= 0) {
#pragma unroll
          for (int r = 0; r < ROWS; ++r) sums[r][c] = multiply_add(down[k][row + r], b, sums[r][c]);
        }
      }
  }
};

template <class A> __device__ __forceinline__ bool is_wild(A v) { return !(v - v == 0); }

// What the outputs of a list give to the pixels of a thread.
template <class A>
__device__ __forceinline__ void gather(
    A (&sums)[ROWS][COLUMNS], AlignedGather<A>* weights, const Output<A, false>* list, int count, const Axis& rows, int row0,
    const Axis& columns, int column0)
{
  const Centres row = centres_of(rows, row0 + threadIdx.x % SIDE), column = centres_of(columns, column0 + threadIdx.x % SIDE);
  for (int first = 0; first < count; first += TOGETHER) {
    const int some = min(TOGETHER, count - first);
    const bool wild = __syncthreads_or(threadIdx.x < some && is_wild(list[first + threadIdx.x].value)) != 0;
    weights->fill(list + first, some, row, column, wild);
    __syncthreads();
    weights->add(sums, some, wild);
  }
  __syncthreads();
}

template <class A>
__device__ __forceinline__ void gather(
    A (&sums)[ROWS][COLUMNS], char*, const Output<A, true>* list, int count, const Axis& rows, int row0,
    const Axis& columns, int column0)
{
  Centres row[ROWS], column[COLUMNS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) row[r] = centres_of(rows, row0 + threadIdx.x / (SIDE / COLUMNS) * ROWS + r);
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) column[c] = centres_of(columns, column0 + threadIdx.x % (SIDE / COLUMNS) * COLUMNS + c);
#pragma unroll 1
  for (int k = 0; k < count; ++k) {
    const Output<A, true>& output = list[k];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      // where a pixel is read at many centres their weights make long sums of their own
      A weights[COLUMNS] = {};
      bool reached[COLUMNS] = {};
      row[r].each([&](int centre) {
        const int m = centre - output.row;
        if (abs(m) > output.shape.rows) return;
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
          column[c].each([&](int other) {
            const int n = other - output.column;
            if (abs(n) > output.shape.columns) return;
            weights[c] += output.shape.weight((A)m, (A)n);
            reached[c] = true;
          });
      });
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c)
        if (reached[c]) sums[r][c] = multiply_add(weights[c], output.value, sums[r][c]);
    }
  }
  __syncthreads();
}

// Long sums are made list by list.
template <class A, class Weights, bool TURNED>
__device__ __forceinline__ void add_list(
    A (&totals)[ROWS][COLUMNS], Weights* weights, const Output<A, TURNED>* list, int count, const Axis& rows, int row0,
    const Axis& columns, int column0)
{
  A sums[ROWS][COLUMNS] = {};
  gather(sums, weights, list, count, rows, row0, columns, column0);
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) totals[r][c] += sums[r][c];
}

template <class T, class A>
__device__ __forceinline__ void store_pixels(
    T* to, long long row, long long column, const A (&values)[ROWS][COLUMNS], int row0, int column0, int height, int width)
{
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      const int h = row0 + threadIdx.x / (SIDE / COLUMNS) * ROWS + r, w = column0 + threadIdx.x % (SIDE / COLUMNS) * COLUMNS + c;
      if (h < height && w < width) to[h * row + w * column] = Narrow<T>::from(values[r][c]);
    }
}

template <class A, bool TURNED> struct WeightsOf { typedef AlignedGather<A> type; };
template <class A> struct WeightsOf<A, true> { typedef char type; };

// The place of a thread's output in the list, from `count` on, if it is `used`; `count` grows by all that are.
__device__ __forceinline__ int listed_at(int* counts, int& count, bool used)
{
  const unsigned lanes = __ballot_sync(0xffffffffu, used);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) counts[warp] = __popc(lanes);
  __syncthreads();
  int at = count + __popc(lanes & ((1u << lane) - 1u));
#pragma unroll
  for (int w = 0; w < THREADS / 32; ++w) {
    count += counts[w];
    if (w < warp) at += counts[w];
  }
  return at;
}

// grid: one block per group and SIDE x SIDE pixels (the columns fastest)
template <class T, bool TURNED>
__global__ void __launch_bounds__(THREADS, 4)
gaussian_input_gradient(
    const T* __restrict__ z, long long z_base, long long z_group, long long z_row, long long z_column,
    const accumulator<T>* __restrict__ inverse, long long inverse_base, long long inverse_group, long long inverse_row, long long inverse_column,
    T* __restrict__ x, long long x_base, long long x_group, long long x_row, long long x_column,
    const void* __restrict__ s, int s_wide, long long s_base, long long s_group, long long s_row, long long s_column,
    const void* __restrict__ t, int t_wide, long long t_base, long long t_group, long long t_row, long long t_column,
    const void* __restrict__ a, int a_wide, long long a_base, long long a_group, long long a_row, long long a_column,
    const int* __restrict__ row_table, int height, const int* __restrict__ column_table, int width,
    int row_radius, int column_radius, double truncate)
{
  typedef accumulator<T> A;
  __shared__ Output<A, TURNED> list[LISTED];
  __shared__ typename WeightsOf<A, TURNED>::type weights;
  __shared__ int counts[THREADS / 32];

  const unsigned wide = (width - 1) / SIDE + 1, high = (height - 1) / SIDE + 1;
  const int column_tile = blockIdx.x % wide, row_tile = blockIdx.x / wide % high;
  const long long group = blockIdx.x / wide / high;
  const Axis rows = axis_of(row_table, height, row_tile), columns = axis_of(column_table, width, column_tile);
  const Widths widths = {map_of(s, s_wide, s_base + group * s_group, s_row, s_column),
                         map_of(t, t_wide, t_base + group * t_group, t_row, t_column),
                         map_of(a, a_wide, a_base + group * a_group, a_row, a_column), truncate, row_radius, column_radius};
  const T* given = z + (z_base + group * z_group);
  const A* scale = inverse + (inverse_base + group * inverse_group);
  const int row0 = row_tile * SIDE, column0 = column_tile * SIDE;

  A totals[ROWS][COLUMNS] = {};
  const int across = columns.last_candidate - columns.first_candidate, down = rows.last_candidate - rows.first_candidate;
  int count = 0;
  for (int line0 = 0, place0 = 0; line0 < down && across > 0;) {
    // the next THREADS candidates, row after row
    const int line = line0 + (place0 + threadIdx.x) / across, place = (place0 + threadIdx.x) % across;
    Output<A, TURNED> output;
    bool used = false;
    if (line < down) {
      const int i = rows.table[rows.first_candidate + line], j = columns.table[columns.first_candidate + place];
      output.row = rows.numbers[i];
      output.column = columns.numbers[j];
      output.shape.read(widths, i, j);
      used = rows.meets(output.row, output.shape.rows) && columns.meets(output.column, output.shape.columns);
      if (used) {
        const A value = widen(given[i * z_row + j * z_column]);
        output.value = value * scale[i * inverse_row + j * inverse_column];
      }
    }
    const int at = listed_at(counts, count, used);
    if (used) list[at] = output;
    __syncthreads();
    if (count > LISTED - THREADS) {
      add_list(totals, &weights, list, count, rows, row0, columns, column0);
      count = 0;
    }
    place0 += THREADS;
    line0 += place0 / across;
    place0 %= across;
  }
  add_list(totals, &weights, list, count, rows, row0, columns, column0);
  store_pixels(x + (x_base + group * x_group), x_row, x_column, totals, row0, column0, height, width);
}

// Σ k over the window of one output
template <class A> __device__ __forceinline__ A sum_of(const Shape<A, false>& shape)
{
  return moments_of(shape.rows, shape.down).sum * moments_of(shape.columns, shape.across).sum;
}

template <class A> __device__ __forceinline__ A sum_of(const Shape<A, true>& shape)
{
  A sum = 0;
  for (int m = shape.rows; m >= 0; --m) {
    A row = 0;
    for (int n = -shape.columns; n <= shape.columns; ++n) row += shape.weight((A)m, (A)n);
    sum += m == 0 ? row : 2 * row;  // row -m is this one, turned round
  }
  return sum;
}

// inverse[g,i,j] = 1 / Σ_{m,n} k[m,n,g,i,j]
// grid: one block per group and THREADS outputs (the outputs fastest)
template <class A, bool TURNED>
__global__ void __launch_bounds__(THREADS)
gaussian_norm(
    A* __restrict__ inverse, long long inverse_base, long long inverse_group, long long inverse_row, long long inverse_column,
    const void* __restrict__ s, int s_wide, long long s_base, long long s_group, long long s_row, long long s_column,
    const void* __restrict__ t, int t_wide, long long t_base, long long t_group, long long t_row, long long t_column,
    const void* __restrict__ a, int a_wide, long long a_base, long long a_group, long long a_row, long long a_column,
    int height, int width, int row_radius, int column_radius, double truncate)
{
  const unsigned blocks = ((unsigned)height * width - 1) / THREADS + 1;
  const int pixel = blockIdx.x % blocks * THREADS + threadIdx.x;
  const long long group = blockIdx.x / blocks;
  if (pixel >= height * width) return;
  const Widths widths = {map_of(s, s_wide, s_base + group * s_group, s_row, s_column),
                         map_of(t, t_wide, t_base + group * t_group, t_row, t_column),
                         map_of(a, a_wide, a_base + group * a_group, a_row, a_column), truncate, row_radius, column_radius};
  const int i = pixel / width, j = pixel - i * width;
  Shape<A, TURNED> shape;
  shape.read(widths, i, j);
  inverse[inverse_base + group * inverse_group + i * inverse_row + j * inverse_column] = 1 / sum_of(shape);
}
