// Device intrinsics that CUDA's headers declare for the GPU only. Included by shim.h alone.
// Rounding follows the GPU; the approximate ones (__expf, rsqrtf) are the host's exact functions.
#pragma once

namespace emulator {

template <class T, class Update>
EMULATOR_UNCHECKED T read_modify_write(T* address, Update update) {
  note_atomic(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  *address = update(old);
  return old;
}

// The types for which CUDA has a __ldg.
template <class T>
constexpr bool has_ldg = std::is_arithmetic_v<T>;
#define EMULATOR_HAS_LDG(T) \
  template <>               \
  inline constexpr bool has_ldg<T> = true;
EMULATOR_HAS_LDG(__half)
EMULATOR_HAS_LDG(__half2)
EMULATOR_HAS_LDG(__nv_bfloat16)
EMULATOR_HAS_LDG(__nv_bfloat162)
EMULATOR_HAS_LDG(float2)
EMULATOR_HAS_LDG(float4)
EMULATOR_HAS_LDG(double2)
EMULATOR_HAS_LDG(char4)
EMULATOR_HAS_LDG(uchar4)
EMULATOR_HAS_LDG(short4)
EMULATOR_HAS_LDG(ushort4)
EMULATOR_HAS_LDG(int2)
EMULATOR_HAS_LDG(int4)
EMULATOR_HAS_LDG(uint2)
EMULATOR_HAS_LDG(uint4)
#undef EMULATOR_HAS_LDG

}  // namespace emulator

// ---- loads and stores --------------------------------------------------------------------------

template <class T>
EMULATOR_INLINE T __ldg(const T* address) {
  static_assert(::emulator::has_ldg<T>, "CUDA has no __ldg for this type");
  return *address;
}
template <class T> EMULATOR_INLINE T __ldcs(const T* address) { return __ldg(address); }
template <class T> EMULATOR_INLINE T __ldca(const T* address) { return __ldg(address); }
template <class T> EMULATOR_INLINE T __ldcg(const T* address) { return __ldg(address); }
template <class T> EMULATOR_INLINE void __stcs(T* address, T value) { *address = value; }
template <class T> EMULATOR_INLINE void __stcg(T* address, T value) { *address = value; }

// ---- atomics -----------------------------------------------------------------------------------

#define EMULATOR_ATOMIC(T, name, result)                                   \
  EMULATOR_INLINE T name(T* address, T value) {                            \
    const auto update = [=](T old) -> T { return result; };                \
    return ::emulator::read_modify_write(address, update);                 \
  }
#define EMULATOR_INTEGER_ATOMICS(T)                                        \
  EMULATOR_ATOMIC(T, atomicAdd, old + value)                               \
  EMULATOR_ATOMIC(T, atomicMax, old < value ? value : old)                 \
  EMULATOR_ATOMIC(T, atomicMin, value < old ? value : old)                 \
  EMULATOR_ATOMIC(T, atomicExch, value)                                    \
  EMULATOR_INLINE T atomicCAS(T* address, T compare, T value) {            \
    const auto update = [=](T old) { return old == compare ? value : old; }; \
    return ::emulator::read_modify_write(address, update);                 \
  }
EMULATOR_INTEGER_ATOMICS(int)
EMULATOR_INTEGER_ATOMICS(unsigned)
EMULATOR_INTEGER_ATOMICS(unsigned long long)
EMULATOR_ATOMIC(float, atomicAdd, old + value)
EMULATOR_ATOMIC(double, atomicAdd, old + value)
EMULATOR_ATOMIC(__half, atomicAdd, old + value)
EMULATOR_ATOMIC(__nv_bfloat16, atomicAdd, old + value)
#undef EMULATOR_INTEGER_ATOMICS
#undef EMULATOR_ATOMIC

// ---- arithmetic --------------------------------------------------------------------------------

#define EMULATOR_MIN_MAX(T)                                           \
  EMULATOR_INLINE T min(T a, T b) { return b < a ? b : a; }           \
  EMULATOR_INLINE T max(T a, T b) { return a < b ? b : a; }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)
#undef EMULATOR_MIN_MAX
EMULATOR_INLINE float min(float a, float b) { return fminf(a, b); }
EMULATOR_INLINE float max(float a, float b) { return fmaxf(a, b); }
EMULATOR_INLINE double min(double a, double b) { return fmin(a, b); }
EMULATOR_INLINE double max(double a, double b) { return fmax(a, b); }

EMULATOR_INLINE float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
EMULATOR_INLINE float __fadd_rn(float a, float b) { return a + b; }
EMULATOR_INLINE float __fsub_rn(float a, float b) { return a - b; }
EMULATOR_INLINE float __fmul_rn(float a, float b) { return a * b; }
EMULATOR_INLINE float __fdiv_rn(float a, float b) { return a / b; }
EMULATOR_INLINE float __frcp_rn(float a) { return 1.0f / a; }
EMULATOR_INLINE float __fsqrt_rn(float a) { return sqrtf(a); }
EMULATOR_INLINE double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
EMULATOR_INLINE double __dadd_rn(double a, double b) { return a + b; }
EMULATOR_INLINE double __dsub_rn(double a, double b) { return a - b; }
EMULATOR_INLINE double __dmul_rn(double a, double b) { return a * b; }
EMULATOR_INLINE double __ddiv_rn(double a, double b) { return a / b; }
EMULATOR_INLINE double __dsqrt_rn(double a) { return sqrt(a); }

EMULATOR_INLINE float __fdividef(float a, float b) { return a / b; }
// Macros, for glibc declares these names itself.
#define __expf expf
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
EMULATOR_INLINE float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
EMULATOR_INLINE float rsqrtf(float a) { return 1.0f / sqrtf(a); }
EMULATOR_INLINE double rsqrt(double a) { return 1.0 / sqrt(a); }
EMULATOR_INLINE void sincospi(double a, double* sine, double* cosine) {
  const long double angle = 3.14159265358979323846264338327950288L * a;
  *sine = (double)sinl(angle);
  *cosine = (double)cosl(angle);
}

// CUDA's conversions saturate and map NaN to zero (64 bits: to the smallest integer); a C++ cast of
// such a value is undefined.
template <class Integer, class Float>
EMULATOR_INLINE Integer emulator_saturate(Float a) {
  using Limits = std::numeric_limits<Integer>;
  if (a != a) return sizeof(Integer) == 8 ? Limits::min() : 0;
  if (a >= -(Float)Limits::min()) return Limits::max();  // max() + 1, which is exact
  if (a < (Float)Limits::min()) return Limits::min();
  return (Integer)a;
}
EMULATOR_INLINE int __float2int_rz(float a) { return emulator_saturate<int>(a); }
EMULATOR_INLINE int __float2int_rn(float a) { return emulator_saturate<int>(nearbyintf(a)); }
EMULATOR_INLINE int __float2int_rd(float a) { return emulator_saturate<int>(floorf(a)); }
EMULATOR_INLINE int __float2int_ru(float a) { return emulator_saturate<int>(ceilf(a)); }
EMULATOR_INLINE int __double2int_rz(double a) { return emulator_saturate<int>(a); }
EMULATOR_INLINE int __double2int_rn(double a) { return emulator_saturate<int>(nearbyint(a)); }
EMULATOR_INLINE long long __float2ll_rz(float a) { return emulator_saturate<long long>(a); }
EMULATOR_INLINE long long __double2ll_rz(double a) { return emulator_saturate<long long>(a); }
EMULATOR_INLINE long long __double2ll_rn(double a) {
  return emulator_saturate<long long>(nearbyint(a));
}

// One rounding: the product of two halves or bfloat16 values is exact in double.
EMULATOR_INLINE __half __hfma(__half a, __half b, __half c) {
  return __double2half((double)__half2float(a) * __half2float(b) + __half2float(c));
}
EMULATOR_INLINE __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __double2bfloat16((double)__bfloat162float(a) * __bfloat162float(b) + __bfloat162float(c));
}

// ---- bits --------------------------------------------------------------------------------------

template <class To, class From>
EMULATOR_INLINE To emulator_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "");
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}
EMULATOR_INLINE int __float_as_int(float a) { return emulator_bits<int>(a); }
EMULATOR_INLINE unsigned __float_as_uint(float a) { return emulator_bits<unsigned>(a); }
EMULATOR_INLINE float __int_as_float(int a) { return emulator_bits<float>(a); }
EMULATOR_INLINE float __uint_as_float(unsigned a) { return emulator_bits<float>(a); }
EMULATOR_INLINE long long __double_as_longlong(double a) { return emulator_bits<long long>(a); }
EMULATOR_INLINE double __longlong_as_double(long long a) { return emulator_bits<double>(a); }
EMULATOR_INLINE int __popc(unsigned a) { return __builtin_popcount(a); }
EMULATOR_INLINE int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
EMULATOR_INLINE int __clz(int a) { return a ? __builtin_clz(a) : 32; }
EMULATOR_INLINE int __clzll(long long a) { return a ? __builtin_clzll(a) : 64; }
EMULATOR_INLINE int __ffs(int a) { return __builtin_ffs(a); }
EMULATOR_INLINE int __mulhi(int a, int b) { return (int)(((long long)a * b) >> 32); }
EMULATOR_INLINE unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)(((unsigned long long)a * b) >> 32);
}
EMULATOR_INLINE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
#define __builtin_assume(condition)
