// Gaussian kernels of a map of widths, made where they are used:
//
//     k[m,n] = exp(-½ (u²/σ_r² + v²/σ_c²)),   u = cosθ·m + sinθ·n,   v = cosθ·n - sinθ·m,   |m| ≤ r_r, |n| ≤ r_c
//
// σ_r, σ_c, θ and the radii belong to the output pixel; not turned, u = m and v = n.
#pragma once
#include "numbers.cuh"

__device__ __forceinline__ float exp2_of(float v) { return exp2f(v); }
__device__ __forceinline__ double exp2_of(double v) { return exp2(v); }

// ½ log2(e): exponents are those of 2
constexpr double HALF_LOG2_E = 0.72134752044448170368;
// Larger exponents are 0 all the same, and smaller than infinity: 0 times one is 0.
constexpr double LARGEST = 1e30;

// A map as it comes, float or double.
struct Map {
  const void* data; bool wide; long long row, column;
  __device__ __forceinline__ double at(int i, int j) const
  {
    const long long k = i * row + j * column;
    return wide ? static_cast<const double*>(data)[k] : (double)static_cast<const float*>(data)[k];
  }
};

__device__ __forceinline__ Map map_of(const void* data, int wide, long long first, long long row, long long column)
{
  const void* from = wide ? (const void*)(static_cast<const double*>(data) + first)
                          : (const void*)(static_cast<const float*>(data) + first);
  return {from, wide != 0, row, column};
}

// What makes a kernel: the maps, how many widths it reaches (< 0: as far as the window) and the window's radii.
struct Widths { Map rows, columns, angle; double truncate; int most_rows, most_columns; };

// int(truncate*s + ½), as the host computes it
__device__ __forceinline__ int radius_of(double s, double truncate, int most)
{
  if (truncate < 0) return s == 0 ? 0 : most;
  const double reach = __dadd_rn(__dmul_rn(truncate, s), 0.5);
  return reach < most ? (int)reach : most;
}

__device__ __forceinline__ double extent_of(double along, double across, double cosine, double sine)
{
  return sqrt(__dadd_rn(__dmul_rn(__dmul_rn(along, along), __dmul_rn(cosine, cosine)),
                        __dmul_rn(__dmul_rn(across, across), __dmul_rn(sine, sine))));
}

// The cosine and the sine of an angle, or both negative: a kernel is the same half a turn on.
__device__ __forceinline__ void turn_of(double angle, double& cosine, double& sine)
{
  const double turns = rint(angle * 0.31830988618379067154);
  const double rest = fma(-turns, 1.2246467991473531772e-16, fma(-turns, 3.1415926535897931160, angle));
  sincospi(rest * 0.31830988618379067154, &sine, &cosine);  // needs no memory of its own
}

// sqrt(½ log2(e)) / σ
__device__ __forceinline__ double sharpness_of(double s) { return s == 0 ? 0 : fmin(0.84932180028801904272 / s, LARGEST); }

// The kernel of one pixel.
template <class A, bool TURNED> struct Shape {
  int rows, columns;  // radii
  A down, across;     // exponents of neighbours along the axes
  __device__ __forceinline__ void read(const Widths& widths, int i, int j)
  {
    const double s = widths.rows.at(i, j), t = widths.columns.at(i, j);
    rows = radius_of(s, widths.truncate, widths.most_rows);
    columns = radius_of(t, widths.truncate, widths.most_columns);
    down = s == 0 ? 0 : (A)fmin(HALF_LOG2_E / (s * s), LARGEST);
    across = t == 0 ? 0 : (A)fmin(HALF_LOG2_E / (t * t), LARGEST);
  }
  __device__ __forceinline__ A along_rows(A m) const { return exp2_of(-(m * m) * down); }
  __device__ __forceinline__ A along_columns(A n) const { return exp2_of(-(n * n) * across); }
  __device__ __forceinline__ A weight(A m, A n) const { return along_rows(m) * along_columns(n); }
};

// down·m + across·n, where the two may nearly cancel.  In single precision both are split: the first parts are
// multiples of one number, few enough that their sums are exact.
template <class A> struct Slope {
  A down, across;
  __device__ __forceinline__ void set(double d, double a) { down = d; across = a; }
  __device__ __forceinline__ A at(A m, A n) const { return multiply_add(across, n, down * m); }
};

template <> struct Slope<float> {
  float down, across, down_rest, across_rest;
  __device__ __forceinline__ void set(double d, double a)
  {
    const float large = 4096 * fmaxf(fabsf((float)d), fabsf((float)a));
    down = __fsub_rn(__fadd_rn((float)d, large), large);
    across = __fsub_rn(__fadd_rn((float)a, large), large);
    down_rest = (float)(d - down);
    across_rest = (float)(a - across);
  }
  __device__ __forceinline__ float at(float m, float n) const
  {
    return multiply_add(across, n, down * m) + multiply_add(across_rest, n, down_rest * m);
  }
};

template <class A> struct Shape<A, true> {
  int rows, columns;
  Slope<A> u, v;  // in units of their widths, times sqrt(½ log2(e))
  __device__ __forceinline__ void read(const Widths& widths, int i, int j)
  {
    const double s = widths.rows.at(i, j), t = widths.columns.at(i, j), angle = widths.angle.at(i, j);
    const double along_u = sharpness_of(s), along_v = sharpness_of(t);
    double cosine, sine;
    turn_of(angle, cosine, sine);
    rows = radius_of(extent_of(s, t, cosine, sine), widths.truncate, widths.most_rows);
    columns = radius_of(extent_of(t, s, cosine, sine), widths.truncate, widths.most_columns);
    u.set(cosine * along_u, sine * along_u);
    v.set(-sine * along_v, cosine * along_v);
  }
  static __device__ __forceinline__ A weight_of(A u, A v) { return exp2_of(multiply_add(-u, u, -(v * v))); }
  __device__ __forceinline__ A weight(A m, A n) const { return weight_of(u.at(m, n), v.at(m, n)); }
};

// Σ k along an axis, the small weights first, and Σ k m²
template <class A> struct Moments { A sum, squares; };

template <class A> __device__ __forceinline__ Moments<A> moments_of(int radius, A exponent)
{
  A sum = 0, squares = 0;
  for (int m = radius; m > 0; --m) {
    const A square = (A)m * (A)m, weight = exp2_of(-square * exponent);
    sum += weight;
    squares = multiply_add(square, weight, squares);
  }
  return {1 + 2 * sum, 2 * squares};
}
