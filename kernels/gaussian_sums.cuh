// Sums over the window of V neighbouring outputs, for walk_window: Σ k x, and what the derivatives in the widths need.
#pragma once
#include "gaussian_window.cuh"

// sums += values, values = 0
template <class A, int K, int V> __device__ __forceinline__ void flush(A (&sums)[K][V], A (&values)[K][V])
{
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      sums[k][v] += values[k][v];
      values[k][v] = 0;
    }
}

template <class S, int V> __device__ __forceinline__ int largest_rows(const S (&shapes)[V])
{
  int largest = shapes[0].rows;
#pragma unroll
  for (int v = 1; v < V; ++v) largest = max(largest, shapes[v].rows);
  return largest;
}

template <class S, int V> __device__ __forceinline__ int largest_columns(const S (&shapes)[V])
{
  int largest = shapes[0].columns;
#pragma unroll
  for (int v = 1; v < V; ++v) largest = max(largest, shapes[v].columns);
  return largest;
}

// f(v, m, n, pixel) for each tap of row m of a strip and output v, -radius ≤ n ≤ radius
template <int V, class A, class S, class F>
__device__ __forceinline__ void for_row(const Strip<A>& strip, const S (&shapes)[V], int m, F f)
{
  const int columns = largest_columns(shapes);
  for (int n = strip.n0 == 0 ? 0 : strip.n0 + 1; n <= min(strip.n1, columns); ++n)
    for (int side = 0; side < (n == 0 ? 1 : 2); ++side) {
      const int across = side ? -n : n;
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (abs(m) <= shapes[v].rows && n <= shapes[v].columns) f(v, m, across, strip.template at<V>(m, across, v));
    }
}

// row(m) for each row of a strip that a thread's outputs reach, above and below
template <class A, class F> __device__ __forceinline__ void for_rows(const Strip<A>& strip, int radius, F row)
{
#pragma unroll 1
  for (int m = strip.m0; m < strip.m1 && m <= radius; ++m)
#pragma unroll 1
    for (int side = 0; side < (m == 0 ? 1 : 2); ++side) row(side ? -m : m);
}

// Axis-aligned kernels are products, even in m and in n.  K = 1: Σ k x; K = 2: Σ k (m² - Σ k m²) x and the
// same with n.
template <class A, int V, int K> struct AlignedSums {
  static constexpr bool SLOPES = K > 1;
  Shape<A, false> shapes[V];
  A scales[V], row_means[V], column_means[V];  // 1 / Σ k, Σ k m² and Σ k n²
  A totals[K][V];

  __device__ __forceinline__ void start()
  {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Moments<A> down = moments_of(shapes[v].rows, shapes[v].down);
      const Moments<A> across = moments_of(shapes[v].columns, shapes[v].across);
      scales[v] = 1 / (down.sum * across.sum);
      row_means[v] = down.squares / down.sum;
      column_means[v] = across.squares / across.sum;
#pragma unroll
      for (int k = 0; k < K; ++k) totals[k][v] = 0;
    }
  }

  // The factors of a row of taps, for Σ_n b x and for Σ_n b (n² - Σ k n²) x.
  __device__ __forceinline__ void row_factors(A (&factors)[K], int v, A m, A part) const
  {
    const A weight = shapes[v].along_rows(m) * (scales[v] * part);
    factors[0] = K == 1 ? weight : weight * (m * m - row_means[v]);
    if (K == 2) factors[K - 1] = weight;
  }

  __device__ __forceinline__ void add(const Strip<A>& strip)
  {
    A sums[K][V] = {};
    const int rows = largest_rows(shapes), columns = largest_columns(shapes);
#pragma unroll 1
    for (int n = strip.n0; n == 0 || n < min(strip.n1, columns); n += CHUNK) {
      A weights[CHUNK][V];
#pragma unroll
      for (int u = 0; u < CHUNK; ++u)
#pragma unroll
        for (int v = 0; v < V; ++v)
          weights[u][v] = n + u < shapes[v].columns ? shapes[v].along_columns((A)(n + u + 1)) : 0;
#pragma unroll 1
      for (int m = strip.m0; m < strip.m1 && m <= rows; ++m) add_row(sums, strip, m, n, weights);
    }
    flush(totals, sums);
  }

  // Rows m and -m, columns n+1 … n+CHUNK on both sides, and the middle one if n is 0.
  __device__ __forceinline__ void add_row(A (&sums)[K][V], const Strip<A>& strip, int m, int n, const A (&weights)[CHUNK][V]) const
  {
    const A *up = strip.template row<V>(strip.above - m), *down = strip.template row<V>(strip.below + m);
    A row[K][V] = {}, x[CHUNK + V];
    if (n == 0) {
      for_columns<V, V>(up, strip.left, strip.pitch, [&](int c, A pixel) { row[0][c] = pixel; });
      for_columns<V, V>(down, strip.left, strip.pitch, [&](int c, A pixel) { row[0][c] += pixel; });
    }
    if (n < strip.n1) {
      for_columns<V, CHUNK + V>(up, strip.right + n, strip.pitch, [&](int c, A pixel) { x[c] = pixel; });
      for_columns<V, CHUNK + V>(down, strip.right + n, strip.pitch, [&](int c, A pixel) { x[c] += pixel; });
      add_columns(row, n, x, weights, [](int u, int v) { return v + u + 1; });
      for_columns<V, CHUNK + V>(up, strip.left - n - CHUNK, strip.pitch, [&](int c, A pixel) { x[c] = pixel; });
      for_columns<V, CHUNK + V>(down, strip.left - n - CHUNK, strip.pitch, [&](int c, A pixel) { x[c] += pixel; });
      add_columns(row, n, x, weights, [](int u, int v) { return CHUNK + v - u - 1; });
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (m <= shapes[v].rows) {
        A factors[K];
        row_factors(factors, v, (A)m, m == 0 ? (A)0.5 : (A)1);  // row 0 was taken twice
        if (K == 2) row[K - 1][v] = multiply_add(-column_means[v], row[0][v], row[K - 1][v]);
#pragma unroll
        for (int k = 0; k < K; ++k) sums[k][v] = multiply_add(factors[k], row[k][v], sums[k][v]);
      }
  }

  template <class At>
  static __device__ __forceinline__ void add_columns(A (&row)[K][V], int n, const A (&x)[CHUNK + V], const A (&weights)[CHUNK][V], At at)
  {
#pragma unroll
    for (int u = 0; u < CHUNK; ++u) {
      const A square = (A)(n + u + 1) * (A)(n + u + 1);
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (K == 1) {
          row[0][v] = multiply_add(weights[u][v], x[at(u, v)], row[0][v]);
        } else {
          const A term = weights[u][v] * x[at(u, v)];
          row[0][v] += term;
          row[K - 1][v] = multiply_add(square, term, row[K - 1][v]);
        }
    }
  }

  __device__ __forceinline__ void add_each(const Strip<A>& strip)
  {
    A sums[K][V] = {};
    for_rows(strip, largest_rows(shapes), [&](int row) {
      for_row<V>(strip, shapes, row, [&](int v, int m, int n, A pixel) {
        A factors[K];
        row_factors(factors, v, (A)m, 1);
        const A weight = shapes[v].along_columns((A)n);
        sums[0][v] = multiply_add(factors[0] * weight, pixel, sums[0][v]);
        if (K == 2) sums[K - 1][v] = multiply_add(factors[K - 1] * (weight * ((A)n * (A)n - column_means[v])), pixel, sums[K - 1][v]);
      });
      flush(totals, sums);
    });
  }

  // Σ k x, or the derivatives for factors of 1
  __device__ __forceinline__ A result(int k, int v) const { return totals[k][v]; }
};

// Turned kernels are the same at (m,n) and (-m,-n).  K = 1: Σ k x; K = 4: its covariances with u², v² and uv too.
template <class A, int V, int K> struct TurnedSums {
  static constexpr bool SLOPES = K > 1;
  Shape<A, true> shapes[V];
  A totals[K][V], moments[K][V];  // of x, and of 1

  __device__ __forceinline__ void start()
  {
#pragma unroll
    for (int v = 0; v < V; ++v)
#pragma unroll
      for (int k = 0; k < K; ++k) totals[k][v] = moments[k][v] = 0;
  }

  // The factors of one tap, not normalised.
  __device__ __forceinline__ void factors(A (&found)[K], int at, A m, A n) const
  {
    const A u = shapes[at].u.at(m, n), v = shapes[at].v.at(m, n);
    found[0] = Shape<A, true>::weight_of(u, v);
    if (K == 4) {
      found[K - 3] = found[0] * (u * u);
      found[K - 2] = found[0] * (v * v);
      found[K - 1] = found[0] * (u * v);
    }
  }
  // A power of 2, such that not even sums of the largest numbers overflow.
  __device__ __forceinline__ A scale(int v) const
  {
    const int bits = 64 - __clz(2 * shapes[v].rows + 1) - __clz(2 * shapes[v].columns + 1);
    return (A)__int_as_float((127 - bits) << 23);
  }

  __device__ __forceinline__ void add(const Strip<A>& strip)
  {
    A sums[K][V] = {}, ones[K][V] = {};
    const int rows = largest_rows(shapes), columns = largest_columns(shapes);
#pragma unroll 1
    for (int n = strip.n0; n == 0 || n < min(strip.n1, columns); n += CHUNK)
#pragma unroll 1
      for (int m = strip.m0; m < strip.m1 && m <= rows; ++m) add_row(sums, ones, strip, m, n);
    flush(totals, sums);
    flush(moments, ones);
  }

  // As of axis-aligned kernels.
  __device__ __forceinline__ void add_row(A (&sums)[K][V], A (&ones)[K][V], const Strip<A>& strip, int m, int n) const
  {
    const A *up = strip.template row<V>(strip.above - m), *down = strip.template row<V>(strip.below + m);
    A row[K][V] = {}, row_ones[K][V] = {}, x[CHUNK + V], y[CHUNK + V];
    if (n == 0) {
      for_columns<V, V>(up, strip.left, strip.pitch, [&](int c, A pixel) { x[c] = pixel; });
      for_columns<V, V>(down, strip.left, strip.pitch, [&](int c, A pixel) { x[c] += pixel; });
#pragma unroll
      for (int v = 0; v < V; ++v) add_pair(row, row_ones, v, (A)m, 0, x[v]);
    }
    if (n < strip.n1) {
      // (m,n) with (-m,-n)
      for_columns<V, CHUNK + V>(down, strip.right + n, strip.pitch, [&](int c, A pixel) { x[c] = pixel; });
      for_columns<V, CHUNK + V>(up, strip.left - n - CHUNK, strip.pitch, [&](int c, A pixel) { y[c] = pixel; });
      add_pairs(row, row_ones, m, n, x, y);
      // (-m,n) with (m,-n)
      for_columns<V, CHUNK + V>(up, strip.right + n, strip.pitch, [&](int c, A pixel) { x[c] = pixel; });
      for_columns<V, CHUNK + V>(down, strip.left - n - CHUNK, strip.pitch, [&](int c, A pixel) { y[c] = pixel; });
      add_pairs(row, row_ones, -m, n, x, y);
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (m <= shapes[v].rows) {
        const A part = (m == 0 ? (A)0.5 : (A)1) * scale(v);  // row 0 was taken twice
#pragma unroll
        for (int k = 0; k < K; ++k) {
          sums[k][v] = multiply_add(row[k][v], part, sums[k][v]);
          ones[k][v] = multiply_add(row_ones[k][v], 2 * part, ones[k][v]);
        }
      }
  }

  __device__ __forceinline__ void add_pair(A (&row)[K][V], A (&ones)[K][V], int v, A m, A n, A both) const
  {
    A found[K];
    factors(found, v, m, n);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      row[k][v] = multiply_add(found[k], both, row[k][v]);
      ones[k][v] += found[k];
    }
  }

  __device__ __forceinline__ void add_pairs(
      A (&row)[K][V], A (&ones)[K][V], int m, int n, const A (&x)[CHUNK + V], const A (&y)[CHUNK + V]) const
  {
#pragma unroll
    for (int u = 0; u < CHUNK; ++u)
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (n + u < shapes[v].columns)
          add_pair(row, ones, v, (A)m, (A)(n + u + 1), x[v + u + 1] + y[CHUNK + v - u - 1]);
  }

  __device__ __forceinline__ void add_each(const Strip<A>& strip)
  {
    A sums[K][V] = {}, ones[K][V] = {};
    for_rows(strip, largest_rows(shapes), [&](int row) {
      for_row<V>(strip, shapes, row, [&](int v, int m, int n, A pixel) {
        A found[K];
        factors(found, v, (A)m, (A)n);
#pragma unroll
        for (int k = 0; k < K; ++k) {
          sums[k][v] = multiply_add(found[k] * scale(v), pixel, sums[k][v]);
          ones[k][v] = multiply_add(found[k], scale(v), ones[k][v]);
        }
      });
      flush(totals, sums);
      flush(moments, ones);
    });
  }

  // Σ k x, and the covariances
  __device__ __forceinline__ A result(int k, int v) const
  {
    const A mean = totals[0][v] / moments[0][v];
    return k == 0 ? mean : totals[k][v] / moments[0][v] - moments[k][v] / moments[0][v] * mean;
  }
};

template <class A, int V, int K, bool TURNED> struct SumsOf { typedef AlignedSums<A, V, K> type; };
template <class A, int V, int K> struct SumsOf<A, V, K, true> { typedef TurnedSums<A, V, K> type; };

// Read the kernels of a thread's outputs, those from (i,j) on that exist, and walk their windows.
template <int V, class T, class A, class Sums>
__device__ __forceinline__ void sum_window(
    Sums& sums, const Widths& widths, int i, int j, int outputs, const View<T, A>& from, int* scratch, A* tile, int held)
{
#pragma unroll
  for (int v = 0; v < V; ++v) {
    sums.shapes[v] = {};
    if (v < outputs) sums.shapes[v].read(widths, i, j + v);
  }
  sums.start();
  const int rows = block_maximum(scratch, largest_rows(sums.shapes));
  const int columns = block_maximum(scratch, largest_columns(sums.shapes));
  const float* level = nullptr;
  if (Sums::SLOPES) {  // their weights add up to 0: they would only lose digits to what all pixels have in common
    const int height = block_maximum(scratch, outputs > 0 ? threadIdx.x / LANES + 1 : 0);
    const int width = block_maximum(scratch, outputs > 0 ? threadIdx.x % LANES * V + outputs : 0);
    level = common_level(from, height, width, rows, columns, scratch);
  }
  walk_window<V>(sums, tile, held, from, rows, columns, level);
}
