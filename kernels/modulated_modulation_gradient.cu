// The gradient of equation (2) in its modulation:
//
//     g_d[m,n,b,e,i,j] = Σ_{c in e} conj(x[b,c, rows[i*rs + m*rd], columns[j*cs + n*cd]]) Σ_o conj(w[m,n,o,c]) g[b,o,i,j]
//
// x (batch, C_in, H, W), w (kh, kw, C_out, C_in/groups), g (batch, C_out, H_out, W_out), g_d (splits, kh, kw,
// batch, G, H_out, W_out), of any strides (counted in elements); -1 in `rows` or `columns` stands for `cval`.
//
// The inner sum is a matrix product, the rows of its tiles being channels seen through taps.  It never
// leaves the registers: as soon as it is formed, a thread multiplies it by its pixels and adds it to its
// totals, over all channels of an entry and all samples that share the modulation.  Each output is
// written once.
//
// A block owns some slots, pairs of a tap and an entry, each with `lanes` rows; the lanes of a slot walk
// through the channels of its entry side by side, and are added up at the end.  So tiles are full where
// an entry has many channels and where it has few.  All rows of a tile sum over the same outputs o, so that
// the slots of a block belong to one family: the entries that lie within one group, or a single entry, where entries
// reach across groups.
#include "back_projection.cuh"
#include "window.cuh"

// One row, a channel of an entry seen through a tap: where its pixels lie from the image's first, the tap in
// entries of the index tables, and its number among the channels of the entry that are walked side by side.
struct Row { long long pixels; int down, across, lane; };

// totals += conj(x) * sums, sums = 0, for the rows whose lanes are below `limit`.
template <int ACROSS, class T, class A>
__device__ __forceinline__ void multiply_pixels(
    A (&totals)[MICRO][MICRO], A (&sums)[MICRO][MICRO], const Row* rows, int limit, const Place* places,
    const Seen<T>& image, int across, A cval)
{
  Place place[MICRO];
  const T* x[MICRO];
#pragma unroll
  for (int q = 0; q < MICRO; ++q) place[q] = places[column_of<A, ACROSS>(across, q)];
  Row row = rows[0];
#pragma unroll
  for (int r = 0; r < MICRO; ++r) {
    const Row last = row;
    row = rows[r];
    if (r == 0 || row.down != last.down || row.across != last.across) {  // another tap
#pragma unroll
      for (int q = 0; q < MICRO; ++q)
        x[q] = place[q].i < 0 ? nullptr : image.at(place[q].i, place[q].j, row.down, row.across);
    }
    if (row.lane < limit) {
#pragma unroll
      for (int q = 0; q < MICRO; ++q) {
        const A pixel = x[q] == nullptr ? cval : widen(x[q][row.pixels]);
        totals[r][q] = multiply_add(conjugate(pixel), sums[r][q], totals[r][q]);
      }
    }
  }
  clear_sums(sums);
}

// A family's slots (tap, entry), tap after tap, of which a block owns `at_once`, each with `lanes` rows.
struct Slots { int first, at_once, taps, kw, entries, first_entry, channels_per_entry, lanes; };
struct Slot { int m, n, entry; bool exists; };  // or the last slot again

__device__ __forceinline__ Slot slot_at(const Slots& slots, int row)
{
  const int at = slots.first + row / slots.lanes, slot = min(at, slots.taps * slots.entries - 1);
  const int tap = slot / slots.entries, m = tap / slots.kw;
  return {m, tap - m * slots.kw, slots.first_entry + slot - tap * slots.entries,
          at == slot && row / slots.lanes < slots.at_once};
}

// totals[r][q] += the sums of all other lanes of the slot, in the rows r that hold the first.
template <int ACROSS, class A, int N, int BP>
__device__ __forceinline__ void join_lanes(A (&totals)[MICRO][MICRO], A (&memory)[N][BP], int lanes, int down, int across)
{
#pragma unroll
  for (int q = 0; q < MICRO; ++q) {
    const int column = column_of<A, ACROSS>(across, q);
    if (lanes > 1) totals[0][q] = add(totals[0][q], totals[1][q]);
    if (lanes > 1) totals[2][q] = add(totals[2][q], totals[3][q]);
    if (lanes > 2) totals[0][q] = add(totals[0][q], totals[2][q]);
    memory[down][column] = totals[0][q];
  }
  if (lanes <= MICRO) return;
  __syncthreads();
  if (row_of(down, 0) % lanes > 0) return;
  for (int other = 1; other < lanes / MICRO && down + other < N; ++other)
#pragma unroll
    for (int q = 0; q < MICRO; ++q)
      totals[0][q] = add(totals[0][q], memory[down + other][column_of<A, ACROSS>(across, q)]);
}

// grid: one block per BR/lanes slots, BP pixels, family, sample and split of what is `shared` (the slots fastest)
template <class T, int BR, int BP>
__global__ void __launch_bounds__(BR * BP / (MICRO * MICRO), BLOCKS<accumulator<T>>)
modulated_modulation_gradient(
    const T* __restrict__ g, long long g_base, long long g_sample, long long g_shared, long long g_group,
    long long g_output, long long g_row, long long g_column,
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_shared,
    long long x_channel, long long x_row, long long x_column,
    const T* __restrict__ w, long long w_m, long long w_n, long long w_group, long long w_output, long long w_channel,
    accumulator<T>* __restrict__ y, int add_to, long long y_base, long long y_sample, long long y_split,
    long long y_m, long long y_n, long long y_entry, long long y_row, long long y_column,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int kh, int kw, int height, int width, int samples, int shared, int splits,
    int families, int entries, int channels_per_entry, int lanes, int channels, int outputs,
    double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  constexpr int ACROSS = BP / MICRO, THREADS = BR / MICRO * ACROSS;
  __shared__ Tiles<A, BR, BP> tiles;
  __shared__ A lane_sums[BR / MICRO][BP];
  __shared__ Row table[BR];
  __shared__ long long weights[BR];  // where those of a row lie from its group's first
  __shared__ Place places[BP];

  unsigned block = blockIdx.x;
  const int at_once = BR / lanes;
  const unsigned slot_tiles = (kh * kw * entries - 1) / at_once + 1, pixel_tiles = (height * width - 1) / BP + 1;
  const int slot0 = block % slot_tiles * at_once;  block /= slot_tiles;
  const int p0 = block % pixel_tiles * BP;         block /= pixel_tiles;
  const int family = block % families;             block /= families;
  const long long sample = block % samples;        block /= samples;
  const int split = block, first_channel = family * entries * channels_per_entry;

  const Slots slots = {slot0, at_once, kh * kw, kw, entries, family * entries, channels_per_entry, lanes};
  for (int r = threadIdx.x; r < BR; r += THREADS) {
    const Slot slot = slot_at(slots, r);
    const int lane = r % lanes, channel = slot.entry * channels_per_entry + lane;
    table[r] = {channel * x_channel, slot.m * rd, slot.n * cd, lane};
    weights[r] = slot.m * w_m + slot.n * w_n + channel * w_channel;
  }
  for (int p = threadIdx.x; p < BP; p += THREADS) {
    const int i = (p0 + p) / width;
    places[p] = {p0 + p < height * width ? i : -1, p0 + p - i * width};
  }

  const int across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
  A totals[MICRO][MICRO], sums[MICRO][MICRO];
  clear_sums(totals);
  clear_sums(sums);
  __syncthreads();  // the tables are complete
  const int each = (shared - 1) / splits + 1;
  for (int b = split * each; b < min(shared, (split + 1) * each); ++b) {
    const T* sample_g = g + g_base + sample * g_sample + b * g_shared;
    const T* sample_x = x + x_base + sample * x_sample + b * x_shared;
    for (int group = first_channel / channels; group * channels < first_channel + channels_per_entry; ++group) {
      const int start = group * channels - first_channel, end = min(channels_per_entry, start + channels);
      for (int c = max(0, start); c < end; c += lanes) {  // lane 0 stands for the channel c of its entry
        const T* first_w = w + group * w_group + (c - group * channels) * w_channel;
        const T* first_g = sample_g + group * g_group;
        __syncthreads();  // the last step is read
        back_project<T>(sums, tiles,
            [&](int r) { return r % lanes < end - c ? first_w + weights[r] : nullptr; }, w_output,
            [&](int p) { return places[p].i < 0 ? nullptr : first_g + places[p].i * g_row + places[p].j * g_column; },
            g_output, outputs, down, across);
        const Seen<T> image = {sample_x + c * x_channel, x_row, x_column, rows, rs, columns, cs};
        multiply_pixels<ACROSS>(totals, sums, table + row_of(down, 0), end - c, places, image, across,
                                number<A>(cval_re, cval_im));
      }
    }
  }

  join_lanes<ACROSS>(totals, lane_sums, lanes, down, across);
#pragma unroll
  for (int r = 0; r < MICRO; ++r) {
    const Slot slot = slot_at(slots, row_of(down, r));
    if (!slot.exists || row_of(down, r) % lanes > 0) continue;
    A* slot_y = y + y_base + sample * y_sample + split * y_split + slot.m * y_m + slot.n * y_n + slot.entry * y_entry;
#pragma unroll
    for (int q = 0; q < MICRO; ++q) {
      const Place place = places[column_of<A, ACROSS>(across, q)];
      A* to = slot_y + place.i * y_row + place.j * y_column;
      if (place.i >= 0) *to = add_to ? add(*to, totals[r][q]) : totals[r][q];
    }
  }
}
