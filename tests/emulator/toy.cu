// Kernels for the tests of the emulator: correct ones, and at the end one with a choice of bugs.
#include <cuda_fp16.h>
#include <cuda_bf16.h>

struct __align__(8) complex64 { float re, im; };

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(__half v) { return __half2float(v); }
__device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

__device__ __forceinline__ void narrow(float* p, float v) { *p = v; }
__device__ __forceinline__ void narrow(double* p, double v) { *p = v; }
__device__ __forceinline__ void narrow(__half* p, float v) { *p = __float2half_rn(v); }
__device__ __forceinline__ void narrow(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

// out[c,i] = sum_t weights[t] x[c, i + t - TAPS / 2], zero outside; a block makes TILE of a row.
// The strides count elements: x and out may be any views.
template <class T, int TAPS, int TILE>
__global__ void __launch_bounds__(TILE)
smooth(const T* __restrict__ x, const float* __restrict__ weights, T* __restrict__ out, int n,
       long long x_row, long long x_column, long long out_row, long long out_column) {
  extern __shared__ __align__(16) unsigned char memory[];
  T* tile = reinterpret_cast<T*>(memory);
  const int first = blockIdx.x * TILE, i = first + threadIdx.x;
  for (int t = threadIdx.x; t < TILE + TAPS - 1; t += TILE) {
    const int source = first + t - TAPS / 2;
    tile[t] = source >= 0 && source < n ? x[blockIdx.y * x_row + source * x_column] : T(0.0f);
  }
  __syncthreads();
  if (i >= n) return;
  auto sum = widen(T(0.0f));
#pragma unroll
  for (int t = 0; t < TAPS; ++t) sum += weights[t] * widen(tile[threadIdx.x + t]);
  narrow(out + blockIdx.y * out_row + i * out_column, sum);
}

// Copies elements of a dtype told at run time: 0 float, 1 double, 2 __half, 3 complex64.
extern "C" __global__ void copy_any(const void* x, void* out, int dtype, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  if (dtype == 0) static_cast<float*>(out)[i] = static_cast<const float*>(x)[i];
  if (dtype == 1) static_cast<double*>(out)[i] = static_cast<const double*>(x)[i];
  if (dtype == 2) static_cast<__half*>(out)[i] = static_cast<const __half*>(x)[i];
  if (dtype == 3) static_cast<complex64*>(out)[i] = static_cast<const complex64*>(x)[i];
}

extern "C" __global__ void conjugate(const complex64* x, complex64* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const complex64 v = x[i];
  out[i] = {v.re, -v.im};
}

// The sum of each row: shuffles within a warp, static shared memory between the warps.
template <class T, int THREADS>
__global__ void row_sum(const T* __restrict__ x, T* __restrict__ out, int n) {
  __shared__ alignas(16) T part[THREADS / 32];
  T sum = T(0);
  for (int i = threadIdx.x; i < n; i += THREADS) sum += x[(long long)blockIdx.x * n + i];
  for (int delta = 16; delta; delta >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, delta);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < THREADS / 32; ++warp) sum += part[warp];
    out[blockIdx.x] = sum;
  }
}

extern "C" __global__ void histogram(const int* __restrict__ x, int* __restrict__ counts, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int negative = __syncthreads_count(i < n && x[i] < 0);
  if (i < n && negative == 0) atomicAdd(counts + x[i], 1);
}

struct Line { float slope, offset; };

// A struct by value; a null pointer stands for no bias.
extern "C" __global__ void apply(const float* x, const float* bias, float* out, Line line, int n) {
  const int i = threadIdx.x;
  if (i < n) out[i] = line.slope * x[i] + line.offset + (bias ? bias[i] : 0.0f);
}

enum Bug {
  NONE,
  READ_PAST_END,
  READ_BEFORE_START,
  WRITE_PAST_END,
  WRITE_TO_CONST,
  SHARED_PAST_END,
  LOCAL_PAST_END,
  NO_BARRIER,
  NO_SECOND_BARRIER,
  EARLY_RETURN,
  TWO_BARRIERS,
  UNINITIALISED,
  BLOCKS_COLLIDE,
  PLAIN_ADD,
  MISALIGNED_PAIR,
  MISALIGNED_SHARED,
  INTEGER_OVERFLOW,
  SHIFT_TOO_FAR,
  DIVIDE_BY_ZERO,
  LANE_NOT_IN_MASK,
  SHUFFLE_FROM_ABSENT_LANE,
};

// out[i] = x[i] + x[i + 1] within each block of threads, the last alone; total counts the blocks;
// `big` is 2^30. Each bug is one line.
template <int BUG>
__global__ void add_neighbour(const float* x, float* out, int* total, int n, int big) {
  extern __shared__ float tile[];
  const int t = threadIdx.x, threads = blockDim.x;
  int i = blockIdx.x * threads + t;
  if (BUG == EARLY_RETURN && i >= n) return;
  if (BUG == READ_PAST_END) tile[t] = x[i];  // READ_PAST_END
  else if (BUG == READ_BEFORE_START) tile[t] = i < n ? x[i - 1] : 0.0f;
  else if (BUG == UNINITIALISED) { if (t) tile[t] = i < n ? x[i] : 0.0f; }
  else if (BUG == SHARED_PAST_END) tile[t + 1] = i < n ? x[i] : 0.0f;
  else tile[t] = i < n ? x[i] : 0.0f;
  if (BUG == TWO_BARRIERS && t % 2) __syncthreads();
  else if (BUG != NO_BARRIER) __syncthreads();
  const float next = t + 1 < threads ? tile[t + 1] : 0.0f;
  if (BUG == NO_SECOND_BARRIER) tile[t] = next;
  if (BUG == WRITE_TO_CONST && i < n) const_cast<float*>(x)[i] = next;
  if (BUG == BLOCKS_COLLIDE && t == 0) out[0] = next;
  if (BUG == MISALIGNED_PAIR && t == 0) out[1] = reinterpret_cast<const float2*>(x + 1)->x;
  if (BUG == MISALIGNED_SHARED && t == 0) out[1] = *reinterpret_cast<double*>(tile + 1);
  if (BUG == INTEGER_OVERFLOW && t == 0) out[0] = big + big;
  if (BUG == SHIFT_TOO_FAR && t == 0) out[0] = 1 << (big >> 20);
  if (BUG == DIVIDE_BY_ZERO && t == 0) out[0] = n / (big - (1 << 30));
  if (BUG == LANE_NOT_IN_MASK) i += 0 * __shfl_sync(0xffffu, t, 0);
  if (BUG == SHUFFLE_FROM_ABSENT_LANE && t % 32 < 16) i += 0 * __shfl_sync(0xffffu, t, 20);
  if (BUG == LOCAL_PAST_END) {
    float copies[2] = {next, next};
    out[0] = copies[n];
  }
  if (t == 0) {
    if (BUG == PLAIN_ADD) *total += 1;
    else atomicAdd(total, 1);
  }
  if (i < n || BUG == WRITE_PAST_END) out[i] = tile[t] + next;
}
