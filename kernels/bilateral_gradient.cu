// The gradient of the bilateral filter y = Σ_q w x / D, D = Σ_q w, with the weights w(p,q) of bilateral.cuh.
// For e, the gradient in y, let
//
//     E(p,q) = Re Σ_c conj(e[c,p]) (x[c,q] - y[c,p]) = a(p,q) - b(p)
//
// with x[c,p], which is near y[c,p], taken off both: a(p,q) = Re Σ_c conj(e[c,p]) (x[c,q] - x[c,p]).  Then
//
//     g_x[c,h] = Σ_p w(p,h)/D(p) e[c,p]                                         over the p that read h
//     g_g[k,h] = Σ_p w(p,h)/D(p) E(p,h) (g[k,p] - g[k,h])/σ_r(p)²               over the p that read h
//              + Σ_q w(h,q)/D(h) E(h,q) (g[k,q] - g[k,h])/σ_r(h)²               over the taps of h
//     g_σs[p] = Σ_q w/D E |q - p|²/σ_s³,  g_σr[p] = Σ_q w/D E |g[q] - g[p]|²/σ_r³
//
// Arrays are those of bilateral.cu, e is like y.  `bilateral_gradient_sums` walks the taps of some outputs
// p, `out_rows` x `out_columns`: it makes g_σs and g_σr, and the records of p, 1/D, b and the falloff.  With
// these `bilateral_gradient` gathers g_x and g_g; the inverse tables say which of these outputs read h.
#include "bilateral.cuh"
#include "adjoint.cuh"
#include "window.cuh"

constexpr int THREADS = 128;
constexpr int CHANNELS = 4;  // of a thread

// What is kept of each output, one image of each.
enum Field { INVERSE_NORM, MEAN, UNIT, SPATIAL, RADIUS };

template <class R> __device__ __forceinline__ R minus(R a, R b) { return a - b; }
__device__ __forceinline__ c64 minus(c64 a, c64 b) { return {a.re - b.re, a.im - b.im}; }
__device__ __forceinline__ c128 minus(c128 a, c128 b) { return {a.re - b.re, a.im - b.im}; }

// sum + Re conj(a) b
template <class R> __device__ __forceinline__ R add_product(R sum, R a, R b) { return multiply_add(a, b, sum); }
__device__ __forceinline__ float add_product(float sum, c64 a, c64 b)
{
  return multiply_add(a.im, b.im, multiply_add(a.re, b.re, sum));
}
__device__ __forceinline__ double add_product(double sum, c128 a, c128 b)
{
  return multiply_add(a.im, b.im, multiply_add(a.re, b.re, sum));
}

// An array by output or by pixel, with its channels.
template <class T> struct Planes {
  const T* data;
  long long step, row, column;

  __device__ __forceinline__ Features<T> at(long long i, long long j) const { return {data + (i * row + j * column), step}; }
};

// The sums over an output's taps: of w, and of w times a and the exponents of its two factors.
template <class R> struct Moments {
  R weights, spatial, range, products, spatial_products, range_products;

  __device__ __forceinline__ void add_tap(R w, R a, R distance, R difference, bool first)
  {
    if (first) {
      weights += w;
      spatial = multiply_add(w, distance, spatial);
      range = multiply_add(w, difference, range);
    }
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

// grid: one block per sample and THREADS outputs
template <class T>
__global__ void __launch_bounds__(THREADS, 4)
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
    const int* __restrict__ out_rows, int height, const int* __restrict__ out_columns, int width,
    const long long* __restrict__ rows, const long long* __restrict__ columns, int row_radius, int column_radius,
    int channels, int features, double truncate, double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  typedef weight_of<T> R;
  unsigned block = blockIdx.x;
  const int outputs = height * width;
  const unsigned tiles = (outputs - 1) / THREADS + 1;
  const int output = block % tiles * THREADS + threadIdx.x;  block /= tiles;
  const long long sample = block;
  if (output >= outputs) return;

  const int down = output / width, across = output - down * width, i = out_rows[down], j = out_columns[across];
  const double spatial = s[s_base + sample * s_sample + down * s_row + across * s_column];
  const double range = r[r_base + sample * r_sample + down * r_row + across * r_column];
  const Falloff<R> f = falloff<R>(spatial, range, truncate, max(row_radius, column_radius));
  const Seen<T> image = {x + x_base + sample * x_sample, x_row, x_column, rows, 1, columns, 1};
  const Seen<guide_of<T>> likeness = {g + g_base + sample * g_sample, g_row, g_column, rows, 1, columns, 1};
  const T* given = e + (e_base + sample * e_sample + down * e_row + across * e_column);
  const T* centre = image.at(i, j, row_radius, column_radius);
  const Features<guide_of<T>> own = {likeness.at(i, j, row_radius, column_radius), g_feature};
  const A cval = number<A>(cval_re, cval_im);

  const int up = min(f.radius, row_radius), left = min(f.radius, column_radius);
  Moments<R> totals = {};
  for (int c0 = 0; c0 == 0 || c0 < channels; c0 += CHANNELS) {
    A middle[CHANNELS], factor[CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
      const bool exists = c0 + c < channels;
      middle[c] = exists ? widen(centre[(c0 + c) * x_channel]) : number<A>(0, 0);
      factor[c] = exists ? widen(given[(c0 + c) * e_channel]) : number<A>(0, 0);
    }
    for (int m = -up; m <= up; ++m) {
      Moments<R> sums = {};
      for (int n = -left; n <= left; ++n) {
        const Features<guide_of<T>> tap = {likeness.at(i, j, row_radius + m, column_radius + n), g_feature};
        const R difference = squared_difference(tap, own, features, f.unit, (R)cval_re), distance = squared_distance<R>(m, n);
        const T* from = image.at(i, j, row_radius + m, column_radius + n);
        R a = 0;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
          if (c0 + c < channels) a = add_product(a, factor[c], minus(value_at(from, (c0 + c) * x_channel, cval), middle[c]));
        sums.add_tap(f.keeps() ? (R)1 : f.weight(difference, distance), a, bounded(f.spatial * distance),
                     bounded(f.range * difference), c0 == 0);
      }
      totals.add(sums);
    }
  }

  const R mean = totals.products / totals.weights;
  if (records != nullptr) {
    R* to = records + record_base + sample * record_sample + output;
    to[INVERSE_NORM * outputs] = 1 / totals.weights;
    to[MEAN * outputs] = mean;
    to[UNIT * outputs] = f.unit;
    to[SPATIAL * outputs] = f.spatial;
    to[RADIUS * outputs] = f.radius;
  }
  const R scale = (R)TWICE_LN_2 / totals.weights;
  if (y_spatial != nullptr)
    y_spatial[y_spatial_base + sample * y_spatial_sample + output] =
        f.keeps() ? 0 : (totals.spatial_products - mean * totals.spatial) * scale / (R)spatial;
  if (y_range != nullptr)
    y_range[y_range_base + sample * y_range_sample + output] =
        f.keeps() ? 0 : (totals.range_products - mean * totals.range) * scale / (R)range;
}

// The records of some outputs.
template <class R> struct Records {
  const R* data;
  int outputs, width;

  __device__ __forceinline__ R get(Field field, int output) const { return data[field * outputs + output]; }
  __device__ __forceinline__ Falloff<R> falloff(int output) const
  {
    return {get(UNIT, output), (R)HALF_LOG2_E, get(SPATIAL, output), (int)get(RADIUS, output)};
  }
};

// The gradients of a pixel in up to CHANNELS channels and features; long windows are summed row by row.
template <class A, class R> struct Gradients {
  A values[CHANNELS];
  R features[CHANNELS];

  __device__ __forceinline__ void clear()
  {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
      values[c] = number<A>(0, 0);
      features[c] = 0;
    }
  }
  __device__ __forceinline__ void take(Gradients& other)
  {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
      values[c] = ::add(values[c], other.values[c]);
      features[c] += other.features[c];
    }
    other.clear();
  }
  // += factor * (there[k] - own[k])
  template <class G>
  __device__ __forceinline__ void add_features(R factor, Features<G> there, const R (&own)[CHANNELS], R unit, int count, R outside)
  {
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k)
      if (k < count)
        features[k] = multiply_add(factor, (value_at(there.data, k * there.step, outside) - own[k]) * unit, features[k]);
  }
};

// Re Σ_c conj(e[c]) (x[c] - z[c]), with cval for x[c] where x is null
template <class R, class T, class A>
__device__ __forceinline__ R product(Features<T> e, Features<T> x, Features<T> z, int channels, A cval)
{
  R sum = 0;
  for (int c = 0; c < channels; ++c)
    sum = add_product(sum, widen(e.data[c * e.step]), minus(value_at(x.data, c * x.step, cval), widen(z.data[c * z.step])));
  return sum;
}

// What a thread needs for its pixel h: the outputs with their records, and the pixel.
template <class T> struct Call {
  typedef guide_of<T> G;
  typedef weight_of<T> R;
  Planes<T> given, middles;  // by output: the gradient that comes in, and the image under the output's centre
  Planes<G> centres;         // and the guide there
  Records<R> records;
  Falloff<R> common;  // of all outputs, if `uniform`
  bool uniform;
  Features<T> pixel;  // of the image at h
  Features<G> here;   // of the guide
  int channels, features;

  __device__ __forceinline__ Falloff<R> falloff(int output) const { return uniform ? common : records.falloff(output); }
};

// The channels and features of a thread's gradients: from the first on, so many.
struct Part { int channel, channels, feature, features; };

// Add what comes through the output (a, b), of which h lies (down, across) pixels away.
template <class T, class A, class R>
__device__ __forceinline__ void add_reader(
    Gradients<A, R>& sums, const Call<T>& call, const Part& part, const R (&own)[CHANNELS], int a, int b, int down, int across)
{
  const int output = a * call.records.width + b;
  const Falloff<R> f = call.falloff(output);
  if (max(abs(down), abs(across)) > f.radius) return;
  const Features<guide_of<T>> centre = call.centres.at(a, b);
  const R difference = squared_difference(call.here, centre, call.features, f.unit, (R)0);
  const R w = (f.keeps() ? (R)1 : f.weight(difference, squared_distance<R>(down, across))) * call.records.get(INVERSE_NORM, output);
  const Features<T> given = call.given.at(a, b);
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c)
    if (c < part.channels) sums.values[c] = add_weighted(sums.values[c], w, widen(given.data[(part.channel + c) * given.step]));
  if (part.features == 0 || f.keeps()) return;
  const R excess = product<R>(given, call.pixel, call.middles.at(a, b), call.channels, A()) - call.records.get(MEAN, output);
  const Features<guide_of<T>> there = {centre.data + part.feature * centre.step, centre.step};
  sums.add_features(w * excess * f.unit, there, own, f.unit, part.features, (R)0);
}

// Add what comes through the taps of the output (a, b), which is centred at h.
template <class T, class A, class R>
__device__ __forceinline__ void add_taps(
    Gradients<A, R>& totals, const Call<T>& call, const Part& part, const R (&own)[CHANNELS], const Seen<T>& image,
    const Seen<guide_of<T>>& likeness, int a, int b, int i, int j, int row_radius, int column_radius, A cval, R guide_cval)
{
  const int output = a * call.records.width + b;
  const Falloff<R> f = call.falloff(output);
  if (f.keeps()) return;
  const Features<T> given = call.given.at(a, b);
  const R mean = call.records.get(MEAN, output), norm = call.records.get(INVERSE_NORM, output);
  const int up = min(f.radius, row_radius), left = min(f.radius, column_radius);
  for (int m = -up; m <= up; ++m) {
    Gradients<A, R> sums;
    sums.clear();
    for (int n = -left; n <= left; ++n) {
      const Features<guide_of<T>> tap = {likeness.at(i, j, row_radius + m, column_radius + n), call.here.step};
      const Features<T> from = {image.at(i, j, row_radius + m, column_radius + n), call.pixel.step};
      const R difference = squared_difference(tap, call.here, call.features, f.unit, guide_cval);
      const R excess = product<R>(given, from, call.pixel, call.channels, cval) - mean;
      const R w = f.weight(difference, squared_distance<R>(m, n)) * norm;
      const Features<guide_of<T>> there = {tap.data == nullptr ? nullptr : tap.data + part.feature * tap.step, tap.step};
      sums.add_features(w * excess * f.unit, there, own, f.unit, part.features, guide_cval);
    }
    totals.take(sums);
  }
}

// grid: one block per sample, CHANNELS channels and features, and THREADS pixels (the pixels fastest)
template <class T>
__global__ void __launch_bounds__(THREADS, sizeof(weight_of<T>) == 8 ? 2 : 3)
bilateral_gradient(
    const T* __restrict__ e, long long e_base, long long e_sample, long long e_channel, long long e_row, long long e_column,
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const guide_of<T>* __restrict__ g,
    long long g_base, long long g_sample, long long g_feature, long long g_row, long long g_column,
    const T* __restrict__ xc, long long xc_base, long long xc_sample, long long xc_channel, long long xc_row, long long xc_column,
    const guide_of<T>* __restrict__ gc,
    long long gc_base, long long gc_sample, long long gc_feature, long long gc_row, long long gc_column,
    const weight_of<T>* __restrict__ records, long long record_base, long long record_sample, int uniform,
    T* __restrict__ y, long long y_base, long long y_sample, long long y_channel, long long y_row, long long y_column,
    guide_of<T>* __restrict__ z,
    long long z_base, long long z_sample, long long z_feature, long long z_row, long long z_column, int add_to,
    const int* __restrict__ out_rows, int outputs_down, const int* __restrict__ out_columns, int outputs_across,
    const long long* __restrict__ rows, const long long* __restrict__ columns,
    const int* __restrict__ row_readers, int height, const int* __restrict__ column_readers, int width,
    int first_row, int first_column, int row_radius, int column_radius, int channels, int features,
    double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  typedef weight_of<T> R;
  unsigned block = blockIdx.x;
  const unsigned tiles = (height * width - 1) / THREADS + 1;
  const unsigned parts = (max(y == nullptr ? 0 : channels, z == nullptr ? 0 : features) - 1) / CHANNELS + 1;
  const int at = block % tiles * THREADS + threadIdx.x;  block /= tiles;
  const int c0 = block % parts * CHANNELS;               block /= parts;
  const long long sample = block;
  if (at >= height * width) return;

  const int h = at / width, w = at - h * width;
  const Part part = {c0, y == nullptr ? 0 : max(0, min(CHANNELS, channels - c0)),
                     c0, z == nullptr ? 0 : max(0, min(CHANNELS, features - c0))};
  const Planes<T> image = {x + x_base + sample * x_sample, x_channel, x_row, x_column};
  const Planes<guide_of<T>> likeness = {g + g_base + sample * g_sample, g_feature, g_row, g_column};
  Call<T> call = {
      {e + e_base + sample * e_sample, e_channel, e_row, e_column},
      {xc + xc_base + sample * xc_sample, xc_channel, xc_row, xc_column},
      {gc + gc_base + sample * gc_sample, gc_feature, gc_row, gc_column},
      {records + record_base + sample * record_sample, outputs_down * outputs_across, outputs_across},
      {}, uniform != 0,
      image.at(first_row + h, first_column + w), likeness.at(first_row + h, first_column + w), channels, features};
  if (uniform) call.common = call.records.falloff(0);
  R own[CHANNELS];
#pragma unroll
  for (int k = 0; k < CHANNELS; ++k)
    own[k] = k < part.features ? widen(call.here.data[(part.feature + k) * call.here.step]) : (R)0;

  const InverseTable down = {row_readers, height}, across = {column_readers, width};
  Gradients<A, R> totals, sums;
  totals.clear();
  sums.clear();
  for (int m = 0; m <= 2 * row_radius; ++m) {
    for_each_output(down, m, h, [&](int a) {
      for (int n = 0; n <= 2 * column_radius; ++n)
        for_each_output(across, n, w, [&](int b) {
          add_reader(sums, call, part, own, a, b, m - row_radius, n - column_radius);
        });
    });
    totals.take(sums);
  }
  if (part.features > 0)
    for_each_output(down, row_radius, h, [&](int a) {
      for_each_output(across, column_radius, w, [&](int b) {
        add_taps(totals, call, part, own, {image.data, x_row, x_column, rows, 1, columns, 1},
                 {likeness.data, g_row, g_column, rows, 1, columns, 1}, a, b, out_rows[a], out_columns[b],
                 row_radius, column_radius, number<A>(cval_re, cval_im), (R)cval_re);
      });
    });

#pragma unroll
  for (int c = 0; c < CHANNELS; ++c) {
    if (c < part.channels)
      y[y_base + sample * y_sample + (c0 + c) * y_channel + h * y_row + w * y_column] = Narrow<T>::from(totals.values[c]);
    if (c < part.features) {
      guide_of<T>* to = z + (z_base + sample * z_sample + (c0 + c) * z_feature + h * z_row + w * z_column);
      *to = Narrow<guide_of<T>>::from(totals.features[c] + (add_to ? widen(*to) : (R)0));
    }
  }
}
