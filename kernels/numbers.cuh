// Number types: T is what arrays hold, accumulator<T> what is computed in.
#pragma once
#include <cuda_fp16.h>
#include <cuda_bf16.h>

struct __align__(8) c64 { float re, im; };
struct __align__(16) c128 { double re, im; };

template <class T> struct accumulator_of { typedef T type; };
template <> struct accumulator_of<__half> { typedef float type; };
template <> struct accumulator_of<__nv_bfloat16> { typedef float type; };
template <class T> using accumulator = typename accumulator_of<T>::type;

__device__ __forceinline__ float widen(__half v) { return __half2float(v); }
__device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
template <class T> __device__ __forceinline__ T widen(T v) { return v; }

template <class T> struct Narrow { static __device__ __forceinline__ T from(T v) { return v; } };
template <> struct Narrow<__half> { static __device__ __forceinline__ __half from(float v) { return __float2half_rn(v); } };
template <> struct Narrow<__nv_bfloat16> {
  static __device__ __forceinline__ __nv_bfloat16 from(float v) { return __float2bfloat16_rn(v); }
};

// ---- arithmetic; explicit fma, so that the bits do not depend on the compiler

__device__ __forceinline__ void set(float& a, double re, double) { a = (float)re; }
__device__ __forceinline__ void set(double& a, double re, double) { a = re; }
__device__ __forceinline__ void set(c64& a, double re, double im) { a.re = (float)re; a.im = (float)im; }
__device__ __forceinline__ void set(c128& a, double re, double im) { a.re = re; a.im = im; }
template <class A> __device__ __forceinline__ A number(double re, double im) { A a; set(a, re, im); return a; }

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }
template <class C> __device__ __forceinline__ C multiply_add(C a, C b, C c) {
  c.re = multiply_add(-a.im, b.im, multiply_add(a.re, b.re, c.re));
  c.im = multiply_add(a.im, b.re, multiply_add(a.re, b.im, c.im));
  return c;
}

__device__ __forceinline__ float add(float a, float b) { return a + b; }
__device__ __forceinline__ double add(double a, double b) { return a + b; }
template <class C> __device__ __forceinline__ C add(C a, C b) { a.re += b.re; a.im += b.im; return a; }

__device__ __forceinline__ float multiply(float a, float b) { return a * b; }
__device__ __forceinline__ double multiply(double a, double b) { return a * b; }
template <class C> __device__ __forceinline__ C multiply(C a, C b) {
  C c;
  c.re = multiply_add(-a.im, b.im, a.re * b.re);
  c.im = multiply_add(a.im, b.re, a.re * b.im);
  return c;
}

__device__ __forceinline__ float conjugate(float v) { return v; }
__device__ __forceinline__ double conjugate(double v) { return v; }
template <class C> __device__ __forceinline__ C conjugate(C v) { v.im = -v.im; return v; }

// ---- N neighbouring values, moved by one instruction where they fill 16 bytes or less

template <class T, int N> struct __align__(sizeof(T) * N) Pack { T v[N]; };
