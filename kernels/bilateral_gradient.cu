// The gradients of the bilateral filter in its image and in its guide, g_x and g_g of bilateral_gradient.cuh,
// from the records of all outputs that read these pixels.
#include "bilateral_gradient.cuh"
#include "adjoint.cuh"

// The outputs that are centred around pixels, along an axis: pixel h lies at the centre of output h + shift,
// which exists from `first` up to `last`; and the other outputs that read a pixel, where `folded` says so.
struct Readers {
  int radius, shift, first, last;
  const int* folded;
  InverseTable table;

  __device__ __forceinline__ bool exists(int output) const { return output >= first && output < last; }
};

// f(a, b, down, across) for the outputs around V pixels from (h, w) on, so far from the first; done() after
// each column of them.
template <int V, class F, class D>
__device__ __forceinline__ void for_each_around(const Readers& rows, const Readers& columns, int h, int w, F f, D done)
{
  for (int n = -columns.radius; n <= columns.radius; ++n) {
    const int b = w + n + columns.shift;
    if (!columns.exists(b)) continue;
    const int top = h + rows.shift, last = min(rows.radius + V - 1, rows.last - 1 - top);
    for (int t = max(-rows.radius, rows.first - top); t <= last; ++t) f(top + t, b, t, n);
    done();
  }
}

// The same for the outputs that read pixel (h, w) across a boundary.
template <class F> __device__ __forceinline__ void for_each_folded(const Readers& rows, const Readers& columns, int h, int w, F f)
{
  if (!rows.folded[h] && !columns.folded[w]) return;
  for (int m = -rows.radius; m <= rows.radius; ++m)
    for_each_output(rows.table, m + rows.radius, h, [&](int a) {
      for (int n = -columns.radius; n <= columns.radius; ++n)
        for_each_output(columns.table, n + columns.radius, w, [&](int b) {
          if (a != h - m + rows.shift || b != w - n + columns.shift) f(a, b, -m, -n);
        });
    });
}

// Sums of CHANNELS channels for V pixels; long windows are summed column by column.
template <class A, int V> struct Sums {
  A values[CHANNELS][V];

  __device__ __forceinline__ void clear()
  {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
      for (int v = 0; v < V; ++v) values[c][v] = number<A>(0, 0);
  }
  __device__ __forceinline__ void take(Sums& other)
  {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
      for (int v = 0; v < V; ++v) values[c][v] = ::add(values[c][v], other.values[c][v]);
    other.clear();
  }
  // Add the sums of one pixel, which is not known before the kernel runs.
  __device__ __forceinline__ void add_pixel(int pixel, const Sums<A, 1>& other)
  {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (v == pixel) values[c][v] = ::add(values[c][v], other.values[c][0]);
  }
};

// w(p,h)/D(p) for the output p and V pixels, of which the first lies (down, across) from p's centre; -1 where
// p does not read the pixel.
template <int V, class R, class G>
__device__ __forceinline__ void weigh_reader(
    R (&w)[V], const Falloff<R>& f, R norm, const Column<G, V>& own, Features<G> centre, int down, int across, int row_radius)
{
  R units[V];
#pragma unroll
  for (int v = 0; v < V; ++v) units[v] = f.unit;
  square_differences(w, own, centre, units, (R)0);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const bool reads = max(abs(down - v), abs(across)) <= f.radius && abs(down - v) <= row_radius;
    const R weight = f.keeps() ? (R)1 : f.weight(w[v], squared_distance<R>(down - v, across));
    w[v] = reads ? weight * norm : (R)-1;
  }
}

// Outputs, and what is known of each: the gradient that comes in, the guide under its centre, its record.
template <class T> struct Outputs {
  typedef guide_of<T> G;
  typedef weight_of<T> R;
  Planes<T> given;
  Planes<G> centres;
  Records<R> records;
  int row_radius;

  // The weights of V pixels, of which the first lies (down, across) from the centre of the output (a, b), or
  // false where it reads none of them.
  template <int V>
  __device__ __forceinline__ bool weigh(R (&w)[V], Falloff<R>& f, const Column<G, V>& own, int a, int b, int down, int across) const
  {
    const int output = a * records.width + b;
    f = records.falloff(output);
    if (abs(across) > f.radius || down - f.radius >= V || -down > f.radius) return false;
    weigh_reader(w, f, records.get(INVERSE_NORM, output), own, centres.at(a, b), down, across, row_radius);
    return true;
  }
};

// Add what the output (a, b) gives to `count` channels from the first on.
template <class T, class A, int V>
__device__ __forceinline__ void add_values(
    Sums<A, V>& sums, const Outputs<T>& outputs, const Column<guide_of<T>, V>& own, int first, int count, int a, int b,
    int down, int across)
{
  weight_of<T> w[V];
  Falloff<weight_of<T>> f;
  if (!outputs.weigh(w, f, own, a, b, down, across)) return;
  const Features<T> given = outputs.given.at(a, b);
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c)
    if (c < count) {
      const A value = widen(given.data[(first + c) * given.step]);
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (!(w[v] < 0)) sums.values[c][v] = add_weighted(sums.values[c][v], w[v], value);
    }
}

// grid: one block per sample, CHANNELS channels, and THREADS times V pixels (the pixels fastest)
template <class T>
__global__ void __launch_bounds__(THREADS, 4)
bilateral_input_gradient(
    const T* __restrict__ e, long long e_base, long long e_sample, long long e_channel, long long e_row, long long e_column,
    const guide_of<T>* __restrict__ gc,
    long long gc_base, long long gc_sample, long long gc_feature, long long gc_row, long long gc_column,
    const weight_of<T>* __restrict__ records, long long record_base, long long record_sample, int uniform,
    int outputs_down, int outputs_across,
    const guide_of<T>* __restrict__ g,
    long long g_base, long long g_sample, long long g_feature, long long g_row, long long g_column,
    T* __restrict__ y, long long y_base, long long y_sample, long long y_channel, long long y_row, long long y_column,
    int row_radius, int row_shift, int row_first, int row_last, const int* __restrict__ row_folded,
    const int* __restrict__ row_readers, int height,
    int column_radius, int column_shift, int column_first, int column_last, const int* __restrict__ column_folded,
    const int* __restrict__ column_readers, int width,
    int first_row, int first_column, int channels, int features)
{
  typedef accumulator<T> A;
  typedef guide_of<T> G;
  constexpr int V = ROWS<A>;
  const Share share(height, width, channels, V);
  if (!share.exists) return;

  const Outputs<T> outputs = {
      {e + e_base + share.sample * e_sample, e_channel, e_row, e_column},
      {gc + gc_base + share.sample * gc_sample, gc_feature, gc_row, gc_column},
      {records + record_base + share.sample * record_sample, outputs_down * outputs_across, outputs_across, uniform != 0},
      row_radius};
  const Readers rows = {row_radius, row_shift, row_first, row_last, row_folded, {row_readers, height}};
  const Readers columns = {column_radius, column_shift, column_first, column_last, column_folded, {column_readers, width}};
  const Planes<G> likeness = {g + g_base + share.sample * g_sample, g_feature, g_row, g_column};
  const int h = share.h, w = share.w;

  Sums<A, V> totals, sums;
  totals.clear();
  sums.clear();
  const Column<G, V> own(likeness, first_row + h, first_column + w, 0, share.pixels, 0, features);
  for_each_around<V>(rows, columns, h, w,
                     [&](int a, int b, int down, int across) {
                       add_values(sums, outputs, own, share.first, share.count, a, b, down, across);
                     },
                     [&]() { totals.take(sums); });
#pragma unroll 1
  for (int v = 0; v < share.pixels; ++v) {
    if (!rows.folded[h + v] && !columns.folded[w]) continue;
    Sums<A, 1> folded;
    folded.clear();
    const Column<G, 1> here(likeness, first_row + h + v, first_column + w, 0, 1, 0, features);
    for_each_folded(rows, columns, h + v, w, [&](int a, int b, int down, int across) {
      add_values(folded, outputs, here, share.first, share.count, a, b, down, across);
    });
    totals.add_pixel(v, folded);
  }

  T* to = y + (y_base + share.sample * y_sample + share.first * y_channel + h * y_row + w * y_column);
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (c < share.count && v < share.pixels) to[c * y_channel + v * y_row] = Narrow<T>::from(totals.values[c][v]);
}

// products[v] = Re Σ_c conj(e[c]) (own[c,v] - q[c])
template <int V, class R, class T>
__device__ __forceinline__ void multiply_own_excess(R (&products)[V], Features<T> e, const Column<T, V>& own, Features<T> q)
{
#pragma unroll
  for (int v = 0; v < V; ++v) products[v] = 0;
  own.each([&](int c, auto value) {
    const auto factor = widen(e.data[c * e.step]), there = widen(q.data[c * q.step]);
#pragma unroll
    for (int v = 0; v < V; ++v) products[v] = add_product(products[v], factor, minus(value(v), there));
  });
}

// sums[k,v] += factors[v] (q[k] - own[k,v]) units[v] for the features that are kept, with cval where q is null
template <int V, class R, class G>
__device__ __forceinline__ void add_differences(
    Sums<R, V>& sums, const R (&factors)[V], const R (&units)[V], const Column<G, V>& own, Features<G> q, R cval)
{
#pragma unroll
  for (int k = 0; k < CHANNELS; ++k)
    if (own.first + k < own.channels) {
      const R there = value_at(q.data, (own.first + k) * q.step, cval);
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (units[v] >= 0) sums.values[k][v] = multiply_add(factors[v], (there - own.kept[k][v]) * units[v], sums.values[k][v]);
    }
}

// Add what comes through the output (a, b) that reads some of V pixels, to the features that are kept.
template <class T, class R, int V>
__device__ __forceinline__ void add_reader(
    Sums<R, V>& sums, const Outputs<T>& outputs, const Planes<T>& middles, const Column<T, V>& values,
    const Column<guide_of<T>, V>& own, int a, int b, int down, int across)
{
  R w[V], excess[V], units[V];
  Falloff<R> f;
  if (!outputs.weigh(w, f, own, a, b, down, across) || f.keeps()) return;
  multiply_own_excess(excess, outputs.given.at(a, b), values, middles.at(a, b));
  const R mean = outputs.records.get(MEAN, a * outputs.records.width + b);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    units[v] = w[v] < 0 ? (R)-1 : f.unit;
    w[v] *= (excess[v] - mean) * f.unit;
  }
  add_differences(sums, w, units, own, outputs.centres.at(a, b), (R)0);
}

// The image and the guide under the taps of outputs: what a tap reads lies at a row and a column of the tables.
template <class T> struct Taps {
  Planes<T> image;
  Planes<guide_of<T>> likeness;
  const long long *rows, *columns;
  double cval_re, cval_im;
};

// Add what comes through the taps of the outputs that are centred at V pixels, to the features that are kept.
// The first one would be output (a, b), and its centre entry (row, column) of the tables.
template <class T, class R, int V>
__device__ __forceinline__ void add_taps(
    Sums<R, V>& totals, const Outputs<T>& outputs, const Taps<T>& taps, const Readers& rows, const Readers& columns,
    const Column<T, V>& values, const Column<guide_of<T>, V>& own, int a, int b, int row, int column)
{
  typedef guide_of<T> G;
  if (!columns.exists(b)) return;
  const int begin = max(0, rows.first - a), end = min(own.end, rows.last - a);
  const Column<T, V> given(outputs.given, a, b, begin, end, 0, values.channels);
  Falloff<R> falloffs[V];
  R norms[V], means[V], units[V];
  int reach = -1;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    falloffs[v] = {-1, 0, 0, -1};
    norms[v] = means[v] = 0;
    if (v >= begin && v < end) {
      const int output = (a + v) * outputs.records.width + b;
      falloffs[v] = outputs.records.falloff(output);
      norms[v] = outputs.records.get(INVERSE_NORM, output);
      means[v] = outputs.records.get(MEAN, output);
    }
    reach = max(reach, falloffs[v].radius);
  }
  const int up = min(reach, rows.radius), left = min(reach, columns.radius);
  const accumulator<T> cval = number<accumulator<T>>(taps.cval_re, taps.cval_im);
  for (int n = -left; n <= left; ++n) {
    Sums<R, V> sums;
    sums.clear();
    const long long w = taps.columns[column + n];
    for (int t = begin - up; t < end + up; ++t) {
      const long long h = taps.rows[row + t];
      const bool inside = h >= 0 && w >= 0;
      const Features<G> tap = inside ? taps.likeness.at(h, w) : Features<G>{nullptr, 0};
      R differences[V], factors[V];
#pragma unroll
      for (int v = 0; v < V; ++v) units[v] = falloffs[v].unit;
      square_differences(differences, own, tap, units, (R)taps.cval_re);
      multiply_excess(factors, given, values, inside ? taps.image.at(h, w) : Features<T>{nullptr, 0}, cval);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const Falloff<R>& f = falloffs[v];
        const R weight = f.weight(differences[v], squared_distance<R>(t - v, n)) * norms[v];
        factors[v] = weight * (factors[v] - means[v]) * f.unit;
        if (max(abs(t - v), abs(n)) > f.radius || abs(t - v) > rows.radius) units[v] = -1;
      }
      add_differences(sums, factors, units, own, tap, (R)taps.cval_re);
    }
    totals.take(sums);
  }
}

// grid: one block per sample, CHANNELS features, and THREADS times V pixels (the pixels fastest)
template <class T>
__global__ void __launch_bounds__(THREADS, sizeof(weight_of<T>) == 8 ? 2 : 3)
bilateral_guide_gradient(
    const T* __restrict__ e, long long e_base, long long e_sample, long long e_channel, long long e_row, long long e_column,
    const guide_of<T>* __restrict__ gc,
    long long gc_base, long long gc_sample, long long gc_feature, long long gc_row, long long gc_column,
    const weight_of<T>* __restrict__ records, long long record_base, long long record_sample, int uniform,
    int outputs_down, int outputs_across,
    const guide_of<T>* __restrict__ g,
    long long g_base, long long g_sample, long long g_feature, long long g_row, long long g_column,
    guide_of<T>* __restrict__ y,
    long long y_base, long long y_sample, long long y_feature, long long y_row, long long y_column,
    int row_radius, int row_shift, int row_first, int row_last, const int* __restrict__ row_folded,
    const int* __restrict__ row_readers, int height,
    int column_radius, int column_shift, int column_first, int column_last, const int* __restrict__ column_folded,
    const int* __restrict__ column_readers, int width,
    int first_row, int first_column, int channels, int features,
    const T* __restrict__ x, long long x_base, long long x_sample, long long x_channel, long long x_row, long long x_column,
    const T* __restrict__ xc, long long xc_base, long long xc_sample, long long xc_channel, long long xc_row, long long xc_column,
    const long long* __restrict__ row_table, int row_entry, const long long* __restrict__ column_table, int column_entry,
    int add_up, double cval_re, double cval_im)
{
  typedef weight_of<T> R;
  typedef guide_of<T> G;
  constexpr int V = FEWER_ROWS<accumulator<T>>;
  const Share share(height, width, features, V);
  if (!share.exists) return;

  const Outputs<T> outputs = {
      {e + e_base + share.sample * e_sample, e_channel, e_row, e_column},
      {gc + gc_base + share.sample * gc_sample, gc_feature, gc_row, gc_column},
      {records + record_base + share.sample * record_sample, outputs_down * outputs_across, outputs_across, uniform != 0},
      row_radius};
  const Readers rows = {row_radius, row_shift, row_first, row_last, row_folded, {row_readers, height}};
  const Readers columns = {column_radius, column_shift, column_first, column_last, column_folded, {column_readers, width}};
  const Planes<T> image = {x + x_base + share.sample * x_sample, x_channel, x_row, x_column};
  const Planes<T> middles = {xc + xc_base + share.sample * xc_sample, xc_channel, xc_row, xc_column};
  const Planes<G> likeness = {g + g_base + share.sample * g_sample, g_feature, g_row, g_column};
  const int h = share.h, w = share.w;

  Sums<R, V> totals, sums;
  totals.clear();
  sums.clear();
  const Column<G, V> own(likeness, first_row + h, first_column + w, 0, share.pixels, share.first, features);
  const Column<T, V> values(image, first_row + h, first_column + w, 0, share.pixels, 0, channels);
  for_each_around<V>(rows, columns, h, w,
                     [&](int a, int b, int down, int across) {
                       add_reader(sums, outputs, middles, values, own, a, b, down, across);
                     },
                     [&]() { totals.take(sums); });
  add_taps(totals, outputs, {image, likeness, row_table, column_table, cval_re, cval_im}, rows, columns, values, own,
           h + row_shift, w + column_shift, h + row_entry, w + column_entry);
#pragma unroll 1
  for (int v = 0; v < share.pixels; ++v) {
    if (!rows.folded[h + v] && !columns.folded[w]) continue;
    Sums<R, 1> folded;
    folded.clear();
    const Column<G, 1> here(likeness, first_row + h + v, first_column + w, 0, 1, share.first, features);
    const Column<T, 1> value(image, first_row + h + v, first_column + w, 0, 1, 0, channels);
    for_each_folded(rows, columns, h + v, w, [&](int a, int b, int down, int across) {
      add_reader(folded, outputs, middles, value, here, a, b, down, across);
    });
    totals.add_pixel(v, folded);
  }

  G* to = y + (y_base + share.sample * y_sample + share.first * y_feature + h * y_row + w * y_column);
#pragma unroll
  for (int k = 0; k < CHANNELS; ++k)
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (k < share.count && v < share.pixels) {
        G* place = to + k * y_feature + v * y_row;
        *place = Narrow<G>::from(totals.values[k][v] + (add_up ? widen(*place) : (R)0));
      }
}
