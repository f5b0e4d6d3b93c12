// Products with patches on tensor cores: y[row, pixel] = Σ_k matrix[row, k] patch[pixel, k], k running over (tap, channel).
//
// A block makes ROWS rows of PIXELS pixels, a warp a rectangle of them.  Both operands pass through shared memory
// in lines of 64 bytes of K, one for each row and one for each pixel; the four chunks of 16 bytes of a line are
// permuted, so that neither writing lines nor loading fragments meets a bank twice.  Lines of the matrix are
// copied asynchronously, MATRIX_STAGES - 1 ahead.  The patches d*x never exist in global memory: a thread makes
// the line of its pixel.  It requests values for the next step before it multiplies the lines of the present
// one, and forms their products after, half a line at a time.  Products d*x are rounded to T, float to TF32;
// sums are float.
//
// A chunk holds neighbouring channels of one tap: the channels of a tap are padded by zeros to whole chunks.
#pragma once
#include "mma.cuh"

constexpr int CHUNKS = 4, AT_ONCE = 2;  // of a line; those that a matrix instruction reads
constexpr int MATRIX_STAGES = 3, PATCH_STAGES = 2;
template <class T> constexpr int CHUNK = 16 / sizeof(T);

template <int ROWS, int PIXELS> struct Tiling {
  static constexpr int THREADS = PIXELS, DOWN = ROWS > 64 ? ROWS / 64 : 1, ACROSS = THREADS / 32 / DOWN;
  static constexpr int WARP_ROWS = ROWS / DOWN, WARP_PIXELS = PIXELS / ACROSS;
  static constexpr int BLOCKS = ROWS > 64 ? 1 : 3;  // per multiprocessor, at least: bounds the registers
};

// The lines of all stages, which lie one after the other in shared memory.
template <int ROWS, int PIXELS> constexpr int LINES = MATRIX_STAGES * ROWS + PATCH_STAGES * PIXELS;

// What a warp has summed: for 16 rows and 8 pixels at a time, the fragment of a lane.
template <int ROWS, int PIXELS> struct Sums {
  float v[Tiling<ROWS, PIXELS>::WARP_ROWS / 16][Tiling<ROWS, PIXELS>::WARP_PIXELS / 8][4];
};

__device__ __forceinline__ int chunk_at(int line, int chunk) { return line * CHUNKS + (chunk ^ line / 2 % CHUNKS); }

// ---- the matrix

// One pass over a tap: where several outputs read a pixel through it, each in a pass of its own rank.
struct Pass { short tap, rank; };

// Rows (taps, padded channels), without gaps; `order` says which tap comes when, null for one after the other.
template <class T> struct Matrix {
  const T* first;
  int rows, taps, padded;
  const Pass* order;

  // The lines of a step; zeros beyond the rows, and beyond `passes` taps.
  template <int ROWS, int THREADS> __device__ __forceinline__ void copy(uint4* lines, int step, int passes) const
  {
#pragma unroll
    for (int e = threadIdx.x; e < ROWS * CHUNKS; e += THREADS) {
      const int row = e / CHUNKS, k = (step * CHUNKS + e % CHUNKS) * CHUNK<T>;
      const bool exists = row < rows && k < passes * padded;
      long long at = 0;
      if (exists) {
        const int moved = order == nullptr ? 0 : order[k / padded].tap - k / padded;
        at = (long long)row * taps * padded + k + moved * padded;
      }
      copy_async(lines + chunk_at(row, e % CHUNKS), reinterpret_cast<const uint4*>(first + at), exists);
    }
  }
};

// ---- patches

// What a tap of a pixel is made from: its channels, null for `outside`, and its factors, null for a patch of zeros.
template <class T> struct Source { const T* values; const T* factors; };

// How channels lie; channel c has the factor (first + c) / per_entry.
template <class T> struct Channels {
  long long step; bool runs;  // neighbours, a chunk of which may be read at once
  int count, padded;
  long long entry_step; int first, per_entry;
  T outside;
};

template <class T> struct Walk { Source<T> source; int pass, channel; };

__device__ __forceinline__ unsigned product_word(const __half* values, __half factor)
{
  const __half2 product = __hmul2(__halves2half2(values[0], values[1]), __half2half2(factor));
  return *reinterpret_cast<const unsigned*>(&product);
}
__device__ __forceinline__ unsigned product_word(const __nv_bfloat16* values, __nv_bfloat16 factor)
{
  const __nv_bfloat162 product = __hmul2(__halves2bfloat162(values[0], values[1]), __bfloat162bfloat162(factor));
  return *reinterpret_cast<const unsigned*>(&product);
}
__device__ __forceinline__ unsigned product_word(const float* values, float factor) { return to_tf32(*values * factor); }

// The channels of a chunk, of which `count` exist, and their factor.
template <class T>
__device__ __forceinline__ void fetch_chunk(
    T (&values)[CHUNK<T>], T& factor, const Source<T>& source, int at, int count, const Channels<T>& channels)
{
  factor = Narrow<T>::from(0);
  if (source.factors != nullptr) {
    const int entry = channels.entry_step == 0 ? 0 : (channels.first + at) / channels.per_entry;
    factor = source.factors[entry * channels.entry_step];
  }
  const T* from = source.values + at * channels.step;
  if (source.values == nullptr || count < CHUNK<T>) {
    const T fill = source.factors == nullptr ? Narrow<T>::from(0) : channels.outside;
    if (source.values == nullptr) count = 0;
#pragma unroll
    for (int v = 0; v < CHUNK<T>; ++v) values[v] = v < count ? __ldg(from + v * channels.step) : fill;
  } else if (channels.runs) {
    const uint4 chunk = __ldg(reinterpret_cast<const uint4*>(from));
#pragma unroll
    for (int v = 0; v < CHUNK<T>; ++v) values[v] = reinterpret_cast<const T*>(&chunk)[v];
  } else {
#pragma unroll
    for (int v = 0; v < CHUNK<T>; ++v) values[v] = __ldg(from + v * channels.step);
  }
}

// Half the line of a thread's pixel: first what it is made from, then the products.
template <class T> struct HalfLine {
  T values[AT_ONCE][CHUNK<T>], factors[AT_ONCE];
  unsigned tails;  // bits: the chunks that are not full

  // `find(pass)` returns the source of a tap.
  template <class Find>
  __device__ __forceinline__ void fetch(Walk<T>& walk, const Channels<T>& channels, Find find)
  {
    tails = 0;
#pragma unroll
    for (int q = 0; q < AT_ONCE; ++q) {
      if (walk.channel == 0) walk.source = find(walk.pass);
      const int count = channels.count - walk.channel;
      fetch_chunk(values[q], factors[q], walk.source, walk.channel, count, channels);
      if (count < CHUNK<T>) tails |= 1u << q;
      walk.channel += CHUNK<T>;
      if (walk.channel == channels.padded) walk = {walk.source, walk.pass + 1, 0};
    }
  }

  __device__ __forceinline__ void store(uint4* lines, int chunk, const Channels<T>& channels) const
  {
#pragma unroll
    for (int q = 0; q < AT_ONCE; ++q) {
      __align__(16) unsigned words[4];
#pragma unroll
      for (int w = 0; w < 4; ++w) words[w] = product_word(values[q] + w * CHUNK<T> / 4, factors[q]);
      if (tails >> q & 1) clear_after(words, channels.count % CHUNK<T>);
      lines[chunk_at(threadIdx.x, chunk + q)] = *reinterpret_cast<const uint4*>(words);
    }
  }

  static __device__ __forceinline__ void clear_after(unsigned (&words)[4], int count)
  {
    constexpr int EACH = CHUNK<T> / 4;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (w * EACH >= count) words[w] = 0;
      else if ((w + 1) * EACH > count) words[w] &= 0xffffu;
    }
  }
};

// ---- the product

__device__ __forceinline__ void round_words(__half, unsigned (&)[4]) {}
__device__ __forceinline__ void round_words(__nv_bfloat16, unsigned (&)[4]) {}
__device__ __forceinline__ void round_words(float, unsigned (&words)[4])
{
#pragma unroll
  for (int r = 0; r < 4; ++r) words[r] = to_tf32(__uint_as_float(words[r]));
}

// sums += the products of AT_ONCE chunks
template <class T, int ROWS, int PIXELS>
__device__ __forceinline__ void multiply_lines(
    Sums<ROWS, PIXELS>& sums, const uint4* matrix, const uint4* patches, int chunk)
{
  typedef Tiling<ROWS, PIXELS> Tiles;
  constexpr int FRAGMENTS = Tiles::WARP_ROWS / 16;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / Tiles::ACROSS * Tiles::WARP_ROWS + lane % 16;
  const int pixel = warp % Tiles::ACROSS * Tiles::WARP_PIXELS + lane % 8 + lane / 16 * 8;
  unsigned left[FRAGMENTS][4];
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    load_fragments(left[f], matrix + chunk_at(row + f * 16, chunk + lane / 16));
    round_words(T(), left[f]);
  }
#pragma unroll
  for (int p = 0; p < Tiles::WARP_PIXELS / 8; p += 2) {
    unsigned right[4];
    load_fragments(right, patches + chunk_at(pixel + p * 8, chunk + lane / 8 % 2));
#pragma unroll
    for (int f = 0; f < FRAGMENTS; ++f) {
      multiply_fragments(T(), sums.v[f][p], left[f], right[0], right[1]);
      multiply_fragments(T(), sums.v[f][p + 1], left[f], right[2], right[3]);
    }
  }
}

// sums = matrix * patches over `passes` taps; `find(pass)` returns the source of one for the thread's pixel.
template <class T, int ROWS, int PIXELS, class Find>
__device__ __forceinline__ void sum_products(
    Sums<ROWS, PIXELS>& sums, uint4* memory, const Matrix<T>& matrix, const Channels<T>& channels, int passes, Find find)
{
  constexpr int MATRIX = ROWS * CHUNKS, PATCHES = PIXELS * CHUNKS;
  uint4* const patches = memory + MATRIX_STAGES * MATRIX;
  const int steps = (passes * channels.padded - 1) / (CHUNKS * CHUNK<T>) + 1;
  sums = {};
  for (int s = 0; s < MATRIX_STAGES - 1; ++s) {
    matrix.template copy<ROWS, PIXELS>(memory + s * MATRIX, s, passes);
    commit_copies();
  }
  HalfLine<T> line;
  Walk<T> walk = {};
  for (int s = -1; s < steps; ++s) {
    if (s >= 0) {
      wait_for_copies<MATRIX_STAGES - 2>();
      __syncthreads();  // this step's lines are complete, the previous step is read
      const int ahead = s + MATRIX_STAGES - 1;
      matrix.template copy<ROWS, PIXELS>(memory + ahead % MATRIX_STAGES * MATRIX, ahead, passes);
      commit_copies();
    }
    const uint4* rows = memory + s % MATRIX_STAGES * MATRIX;
    const uint4* present = patches + s % PATCH_STAGES * PATCHES;
    uint4* next = patches + (s + 1) % PATCH_STAGES * PATCHES;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk += AT_ONCE) {
      if (s + 1 < steps) line.fetch(walk, channels, find);
      if (s >= 0) multiply_lines<T>(sums, rows, present, chunk);
      if (s + 1 < steps) line.store(next, chunk, channels);
    }
  }
  wait_for_copies<0>();
  __syncthreads();  // the memory is free
}

// use(row, sum) for the rows of each thread's pixel; the sums pass through shared memory as A.
template <class A, int ROWS, int PIXELS, class Use>
__device__ __forceinline__ void for_each_row(const Sums<ROWS, PIXELS>& sums, uint4* memory, int rows, Use use)
{
  typedef Tiling<ROWS, PIXELS> Tiles;
  constexpr int PITCH = PIXELS + 8;  // keeps neighbouring rows in other banks
  A* const tile = reinterpret_cast<A*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / Tiles::ACROSS * 16 + lane / 4, pixel = warp % Tiles::ACROSS * Tiles::WARP_PIXELS + lane % 4 * 2;
#pragma unroll
  for (int f = 0; f < Tiles::WARP_ROWS / 16; ++f) {
    if (f > 0) __syncthreads();  // the previous rows are used
#pragma unroll
    for (int p = 0; p < Tiles::WARP_PIXELS / 8; ++p)
#pragma unroll
      for (int r = 0; r < 4; r += 2) {
        const Pack<A, 2> pair = {Narrow<A>::from(sums.v[f][p][r]), Narrow<A>::from(sums.v[f][p][r + 1])};
        *reinterpret_cast<Pack<A, 2>*>(tile + (row + r * 4) * PITCH + pixel + p * 8) = pair;
      }
    __syncthreads();
#pragma unroll 4
    for (int r = 0; r < Tiles::DOWN * 16; ++r) {
      const int at = r / 16 * Tiles::WARP_ROWS + f * 16 + r % 16;
      if (at < rows) use(at, tile[r * PITCH + threadIdx.x]);
    }
  }
}

// Write the rows of each thread's pixel from `y` on, null beyond the image.
template <class T, int ROWS, int PIXELS>
__device__ __forceinline__ void store_sums(
    const Sums<ROWS, PIXELS>& sums, uint4* memory, T* y, long long y_row, int rows)
{
  for_each_row<T>(sums, memory, rows, [&](int row, T sum) {
    if (y != nullptr) y[row * y_row] = sum;
  });
}
