// What the gradients of the bilateral filter sum over the taps of each output p, with E and b as in
// bilateral_gradient.cuh:
//
//     D(p) = Σ_q w(p,q),  b(p) = Σ_q w(p,q) a(p,q) / D(p)
//     g_σs[p] = Σ_q w/D E |q - p|²/σ_s³,  g_σr[p] = Σ_q w/D E |g[q] - g[p]|²/σ_r³
//
// Rows of outputs are neighbours in the image; columns may be any.
#include "bilateral_gradient.cuh"

// The sums over an output's taps: of w, and of w times a and the exponents of its two factors.
template <class R> struct Moments {
  R weights, spatial, range, products, spatial_products, range_products;

  __device__ __forceinline__ void add_tap(R w, R a, R distance, R difference)
  {
    weights += w;
    spatial = multiply_add(w, distance, spatial);
    range = multiply_add(w, difference, range);
    const R product = w * a;
    products += product;
    spatial_products = multiply_add(product, distance, spatial_products);
    range_products = multiply_add(product, difference, range_products);
  }
  __device__ __forceinline__ void add(const Moments& other)
  {
    weights += other.weights;
    spatial += other.spatial;
    range += other.range;
    products += other.products;
    spatial_products += other.spatial_products;
    range_products += other.range_products;
  }
};

// Keeps 0 * value = 0, and NaN.
template <class R> __device__ __forceinline__ R bounded(R value) { return value > LARGEST<R> ? LARGEST<R> : value; }

// grid: one block per sample and THREADS times V outputs (the columns fastest)
template <class T>
__global__ void __launch_bounds__(THREADS, 3)
bilateral_gradient_sums(
    const T* __restrict__ e, long long e_base, long long e_sample, long long e_channel, long long e_row, long long e_column,
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const guide_of<T>* __restrict__ g,
    long long g_base, long long g_sample, long long g_feature, long long g_row, long long g_column,
    const double* __restrict__ s, long long s_base, long long s_sample, long long s_row, long long s_column,
    const double* __restrict__ r, long long r_base, long long r_sample, long long r_row, long long r_column,
    weight_of<T>* __restrict__ records, long long record_base, long long record_sample,
    weight_of<T>* __restrict__ y_spatial, long long y_spatial_base, long long y_spatial_sample,
    weight_of<T>* __restrict__ y_range, long long y_range_base, long long y_range_sample,
    int first_row, int first, int height, const int* __restrict__ out_columns, int outputs_down, int width,
    const long long* __restrict__ rows, const long long* __restrict__ columns, int row_radius, int column_radius,
    int channels, int features, double truncate, double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  typedef weight_of<T> R;
  typedef guide_of<T> G;
  constexpr int V = FEWER_ROWS<A>;
  unsigned block = blockIdx.x;
  const int lines = (height - 1) / V + 1;
  const unsigned tiles = (lines * width - 1) / THREADS + 1;
  const int column = block % tiles * THREADS + threadIdx.x;  block /= tiles;
  const long long sample = block;
  if (column >= lines * width) return;

  const int line = column / width * V, across = column % width, pixels = min(V, height - line);
  const int i = first_row + line, j = out_columns[across];
  Falloff<R> falloffs[V];
  R units[V], spatials[V], ranges[V];
  int reach = -1;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    falloffs[v] = {0, 0, 0, -1};
    spatials[v] = ranges[v] = 1;
    if (v < pixels) {
      const double spatial = s[s_base + sample * s_sample + (first + line + v) * s_row + across * s_column];
      const double range = r[r_base + sample * r_sample + (first + line + v) * r_row + across * r_column];
      falloffs[v] = falloff<R>(spatial, range, truncate, max(row_radius, column_radius));
      spatials[v] = (R)spatial;
      ranges[v] = (R)range;
    }
    units[v] = falloffs[v].unit;
    reach = max(reach, falloffs[v].radius);
  }
  const Planes<T> given = {e + e_base + sample * e_sample, e_channel, e_row, e_column};
  const Planes<T> image = {x + x_base + sample * x_sample, x_channel, x_row, x_column};
  const Planes<G> likeness = {g + g_base + sample * g_sample, g_feature, g_row, g_column};
  const long long centre_row = rows[i + row_radius], centre_column = columns[j + column_radius];
  const Column<T, V> factors(given, first + line, across, 0, pixels, 0, channels);
  const Column<T, V> middle(image, centre_row, centre_column, 0, pixels, 0, channels);
  const Column<G, V> own(likeness, centre_row, centre_column, 0, pixels, 0, features);
  const A cval = number<A>(cval_re, cval_im);

  const int up = min(reach, row_radius), left = min(reach, column_radius);
  Moments<R> totals[V] = {};
  for (int n = -left; n <= left; ++n) {
    Moments<R> sums[V] = {};
    const long long w = columns[j + column_radius + n];
    for (int t = -up; t < up + V; ++t) {
      if (t - up >= pixels) break;  // past the last output's taps
      const long long h = rows[i + row_radius + t];
      const bool inside = h >= 0 && w >= 0;
      R differences[V], products[V];
      square_differences(differences, own, inside ? likeness.at(h, w) : Features<G>{nullptr, 0}, units, (R)cval_re);
      multiply_excess(products, factors, middle, inside ? image.at(h, w) : Features<T>{nullptr, 0}, cval);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const Falloff<R>& f = falloffs[v];
        const R distance = squared_distance<R>(t - v, n);
        if (max(abs(t - v), abs(n)) <= f.radius && abs(t - v) <= row_radius)
          sums[v].add_tap(f.keeps() ? (R)1 : f.weight(differences[v], distance), products[v], bounded(f.spatial * distance),
                          bounded(f.range * differences[v]));
      }
    }
#pragma unroll
    for (int v = 0; v < V; ++v) totals[v].add(sums[v]);
  }

  const int outputs = outputs_down * width;
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (v < pixels) {
      const int output = (first + line + v) * width + across;
      const Moments<R>& total = totals[v];
      const Falloff<R>& f = falloffs[v];
      const R mean = total.products / total.weights, scale = (R)TWICE_LN_2 / total.weights;
      if (records != nullptr) {
        R* to = records + record_base + sample * record_sample + output;
        to[INVERSE_NORM * outputs] = 1 / total.weights;
        to[MEAN * outputs] = mean;
        to[UNIT * outputs] = f.unit;
        to[SPATIAL * outputs] = f.spatial;
        to[RADIUS * outputs] = f.radius;
      }
      if (y_spatial != nullptr)
        y_spatial[y_spatial_base + sample * y_spatial_sample + output] =
            f.keeps() ? 0 : (total.spatial_products - mean * total.spatial) * scale / spatials[v];
      if (y_range != nullptr)
        y_range[y_range_base + sample * y_range_sample + output] =
            f.keeps() ? 0 : (total.range_products - mean * total.range) * scale / ranges[v];
    }
}
