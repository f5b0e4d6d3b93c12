// The gradients of y[g,s,o,i,j] = Σ k[m,n,g,i,j,c,o] x[g,s,c, source(i,m), source(j,n)], local.cu:
//
//     input    x[g,s,c,h,w] = Σ conj(k[m,n,g,i,j,c,o]) y[g,s,o,i,j]  over o and all m, n, i, j with
//                             source(i,m) = h and source(j,n) = w
//     kernels  k[m,n,g,i,j,c,o] = Σ_s conj(x[g,s,c, source(i,m), source(j,n)]) y[g,s,o,i,j]
//
// y is the gradient that comes in, x or k the one that comes out, with the shapes and lanes of local.cu.
// k is the traffic here too.
//
// Input: each value of k is requested once for up to S samples.  A thread owns a pixel and RUN of its
// channels, so that it uses RUN times what it reads of y.  It walks over the outputs that read the pixel,
// which the inverse tables list, and over its lane's part of the o's; the o-lanes are summed at the end.
// `source` itself is not needed: an output that reads cval is in no list.
//
// Kernels: a thread walks over k as in local.cu, sums over the samples of a launch by itself, and stores V
// values at once, each once.  An index of -1 in `rows` or `columns` stands for `cval`.
#include "adjoint.cuh"
#include "local.cuh"

// ---- input

template <int V, int S> constexpr int OUTPUTS = S > 1 ? 1 : V == 1 ? 4 : 2;  // of a round, RUN vectors of k for each
template <class A, int V, int S> constexpr int RUN = S > 1 ? 32 / sizeof(A) : 8 / OUTPUTS<V, S>;

// The outputs that read a pixel along an axis, tap after tap.
struct Readers {
  const InverseTable table;
  const int pixel, taps;
  int tap, output;
  const int* list;  // further outputs that read it through this tap
  int listed;

  __device__ __forceinline__ void start() {
    tap = -1;
    listed = 0;
    next();
  }
  __device__ __forceinline__ bool more() const { return tap < taps; }
  __device__ __forceinline__ void next() {
    if (listed > 0) {
      --listed;
      output = *list++;
      return;
    }
    do {
      if (++tap >= taps) return;
      output = table.entries[tap * table.pixels + pixel];
    } while (output == -1);
    if (output < -1) {
      list = table.entries - 2 - output;
      listed = *list++ - 1;
      output = *list++;
    }
  }
};

// A thread's way over k and y: the outputs that read its pixel, and for each its lane's part of the o's,
// one run of neighbours after the other.
template <class T, int V> struct Sources {
  Readers rows, columns;
  const T *const k, *const y;  // the thread's first channel and output
  const long long k_m, k_n, k_row, k_column, k_output, y_row, y_column, y_channel;
  const int outputs, o_lanes, o_lane, run;  // V divides a run

  int o, at;  // the run of lane 0, the place in the run
  const T *row_k, *row_y, *kernel, *given;

  __device__ __forceinline__ void start() {
    rows.start();
    columns.start();
    if (!columns.more()) rows.tap = rows.taps;
    look_up_row();
    look_up();
  }
  __device__ __forceinline__ void look_up_row() {
    row_k = k + rows.tap * k_m + rows.output * k_row;
    row_y = y + rows.output * y_row;
  }
  __device__ __forceinline__ void look_up() {
    o = at = 0;
    kernel = row_k + columns.tap * k_n + columns.output * k_column;
    given = row_y + columns.output * y_column;
  }
  __device__ __forceinline__ bool more() const { return rows.more(); }
  __device__ __forceinline__ bool here() const { return more() && o + o_lane * run < outputs; }
  // One step; steps beyond the end are harmless, for nothing is here() then.
  __device__ __forceinline__ void next() {
    at += V;
    if (at == run) {
      at = 0;
      o += o_lanes * run;
    }
    if (o < outputs) {
      const int forward = at > 0 ? V : V + (o_lanes - 1) * run;
      kernel += forward * k_output;
      given += forward * y_channel;
      return;
    }
    columns.next();
    if (!columns.more()) {
      columns.start();
      rows.next();
      look_up_row();
    }
    look_up();
  }
};

// A round: vectors of k for U outputs and R channels, and where y is; bit u of `here` is for output u.
template <class T, int V, int U, int R> struct Round {
  Pack<T, V> k[U][R];
  const T* given[U];
  unsigned here;

  __device__ __forceinline__ void take(Sources<T, V>& sources, int channels, long long k_lanes) {
    here = 0;
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const bool step = sources.here();
      const T* kernel = sources.kernel;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        k[u][r] = Pack<T, V>();
        if (step && r < channels) k[u][r] = load_once<T, V>(kernel);
        kernel += k_lanes;
      }
      given[u] = sources.given;
      here |= (unsigned)step << u;
      sources.next();
    }
  }
};

// sums[s*R + r] += Σ_{u,v} conj(k[u][r][v]) * y[s, u, v]
template <class T, class A, int V, int S, int U, int R>
__device__ __forceinline__ void add_outputs(
    A (&sums)[S * R], const Round<T, V, U, R>& round, long long y_sample, long long y_channel, int active)
{
#pragma unroll
  for (int s = 0; s < S; ++s) {
    if (S > 1 && s >= active) break;
    A outputs[U][V];
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int v = 0; v < V; ++v) {
        outputs[u][v] = number<A>(0, 0);
        if (round.here >> u & 1) outputs[u][v] = widen(round.given[u][s * y_sample + v * y_channel]);
      }
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int v = 0; v < V; ++v)
#pragma unroll
        for (int r = 0; r < R; ++r)
          sums[s * R + r] = multiply_add(conjugate(widen(round.k[u][r].v[v])), outputs[u][v], sums[s * R + r]);
  }
}

// grid: one block per group, team.pixels pixels, RUN*c_lanes channels and S samples (the samples fastest)
// dynamic shared memory: S * RUN * team.places() accumulators
template <class T, int V, int S>
__global__ void __launch_bounds__(THREADS, S > 1 ? 2 : V < 8 ? 4 : 3)
local_input_gradient(
    const T* __restrict__ y, long long y_base, long long y_group, long long y_sample,
    long long y_channel, long long y_row, long long y_column,
    const T* __restrict__ k, long long k_base, long long k_group, long long k_m, long long k_n,
    long long k_row, long long k_column, long long k_channel, long long k_output, long long k_lanes,
    T* __restrict__ x, long long x_base, long long x_group, long long x_sample,
    long long x_channel, long long x_row, long long x_column,
    const int* __restrict__ rows, int height, const int* __restrict__ columns, int width,
    int kh, int kw, int samples, int channels, int outputs, int c_lanes, int o_lanes, int run)
{
  typedef accumulator<T> A;
  constexpr int U = OUTPUTS<V, S>, R = RUN<A, V, S>;
  extern __shared__ __align__(16) unsigned char shared[];
  A* totals = reinterpret_cast<A*>(shared);

  const Team team(c_lanes, o_lanes);
  const int pixels = height * width, places = team.places();
  const Share first(samples, S, channels, R * c_lanes, pixels, team.pixels);
  const int active = min(S, samples - first.sample), kept = min(R * c_lanes, channels - first.channel);
  const int p = first.pixel + team.pixel;

  if (team.pixel < team.pixels && p < pixels && team.c_lane < kept) {
    const int own = (kept - 1 - team.c_lane) / c_lanes + 1, o = team.o_lane * run;  // own: channels of this thread
    Sources<T, V> sources = {
        {{rows, height}, p / width, kh}, {{columns, width}, p % width, kw},
        k + k_base + first.group * k_group + (first.channel + team.c_lane) * k_channel + o * k_output,
        y + y_base + first.group * y_group + first.sample * y_sample + o * y_channel,
        k_m, k_n, k_row, k_column, k_output, y_row, y_column, y_channel, outputs, o_lanes, team.o_lane, run};
    sources.start();

    A* place = totals + team.place();
    A sums[S * R];
#pragma unroll
    for (int n = 0; n < S * R; ++n) place[n * places] = sums[n] = number<A>(0, 0);
    for (int rounds = 1; sources.more(); ++rounds) {
      Round<T, V, U, R> round;
      round.take(sources, own, k_lanes);
      add_outputs<T, A, V, S>(sums, round, y_sample, y_channel, active);
      if (rounds % (STRETCH / (U * V)) == 0 || !sources.more()) move_sums(place, places, sums);
    }
  }
  __syncthreads();
  store_sums<S>(
      x + x_base + first.group * x_group + first.sample * x_sample + first.channel * x_channel,
      {x_sample, x_channel, x_row, x_column}, team, first.pixel, pixels, width, kept, active,
      [&](int pixel, int c, int s) {
        const A* lane = totals + (s * R + c / c_lanes) * places + pixel * team.pitch + c % c_lanes * o_lanes;
        return sum_lanes(lane, 1, o_lanes);
      });
}

// ---- kernels

template <int V> constexpr int IN_FLIGHT = V < 8 ? 8 : 4;  // vectors of k that a thread sums at once

// A round of N steps: where in k the sums belong, and where the pixels are; bit u of the masks is for step u.
template <class T, int N> struct Targets {
  T* kernel[N];
  const T* pixel[N];
  unsigned here, inside;

  template <bool STAYS> __device__ __forceinline__ void take(Path<T, T>& path) {
    here = inside = 0;
#pragma unroll
    for (int u = 0; u < N; ++u) {
      const bool step = path.here();
      kernel[u] = path.kernel;
      pixel[u] = path.pixel;
      here |= (unsigned)step << u;
      inside |= (unsigned)(step && path.inside) << u;
      path.step();
      if (!STAYS) path.turn();
    }
    if (STAYS) path.turn();
  }
};

// sums[u][v] += conj(x[u]) * y[v], in one sample: `x_sample` on from the steps' pixels
template <class T, class A, int V, int N>
__device__ __forceinline__ void add_sample(
    A (&sums)[N][V], const Targets<T, N>& steps, long long x_sample, const T* y, long long y_channel, A cval)
{
  A pixels[N], outputs[V];
#pragma unroll
  for (int u = 0; u < N; ++u) {
    pixels[u] = cval;
    if (steps.inside >> u & 1) pixels[u] = widen(steps.pixel[u][x_sample]);
  }
#pragma unroll
  for (int v = 0; v < V; ++v) outputs[v] = widen(y[v * y_channel]);
#pragma unroll
  for (int u = 0; u < N; ++u)
#pragma unroll
    for (int v = 0; v < V; ++v) sums[u][v] = multiply_add(conjugate(pixels[u]), outputs[v], sums[u][v]);
}

// Store the sums of all steps, V at a time, or add them to what is there.
template <class T, class A, int V, int N>
__device__ __forceinline__ void store_steps(const A (&sums)[N][V], const Targets<T, N>& steps, bool add_up) {
#pragma unroll
  for (int u = 0; u < N; ++u)
    if (steps.here >> u & 1) {
      Pack<T, V>* to = reinterpret_cast<Pack<T, V>*>(steps.kernel[u]);
      Pack<T, V> values;
      if (add_up) values = *to;
#pragma unroll
      for (int v = 0; v < V; ++v) values.v[v] = Narrow<T>::from(add_up ? add(sums[u][v], widen(values.v[v])) : sums[u][v]);
      *to = values;
    }
}

// The samples that a launch sums: `planes` images of each of `volumes`.
struct Samples { int volumes, planes; long long x_volume, x_plane, y_volume, y_plane; };

// One round: N steps, staying with a tap or not.
template <bool STAYS, int N, int V, class T, class A>
__device__ __forceinline__ void sum_steps(
    Path<T, T>& path, const Samples& samples, const T* y, long long y_channel, A cval, bool add_up)
{
  Targets<T, N> steps;
  steps.template take<STAYS>(path);
  A sums[N][V];
#pragma unroll
  for (int u = 0; u < N; ++u)
#pragma unroll
    for (int v = 0; v < V; ++v) sums[u][v] = number<A>(0, 0);
  for (int volume = 0; volume < samples.volumes; ++volume) {
    const T* from = y + volume * samples.y_volume;
    long long x_sample = volume * samples.x_volume;
    for (int plane = 0; plane < samples.planes; ++plane) {
      add_sample(sums, steps, x_sample, from, y_channel, cval);
      from += samples.y_plane;
      x_sample += samples.x_plane;
    }
  }
  store_steps(sums, steps, add_up);
}

// grid: one block per group, team.pixels pixels and V*o_lanes outputs (the outputs fastest)
template <class T, int V>
__global__ void __launch_bounds__(THREADS, sizeof(T) < 16 ? 3 : 2)
local_kernels_gradient(
    const T* __restrict__ y, long long y_base, long long y_group, long long y_volume, long long y_plane,
    long long y_channel, long long y_row, long long y_column,
    const T* __restrict__ x, long long x_base, long long x_group, long long x_volume, long long x_plane,
    long long x_channel, long long x_row, long long x_column, long long x_lanes,
    T* __restrict__ k, int add_up, long long k_base, long long k_group, long long k_row, long long k_column,
    long long k_channel, long long k_output, long long k_lanes, long long k_next, long long k_down,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int kh, int kw, int height, int width, int volumes, int planes, int channels, int outputs, int c_lanes, int o_lanes,
    double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  constexpr int N = IN_FLIGHT<V>;
  const Team team(c_lanes, o_lanes);
  const Share first(1, 1, outputs, V * o_lanes, height * width, team.pixels);
  const int p = first.pixel + team.pixel, i = p / width, j = p - i * width, o = first.channel + team.o_lane * V;
  if (team.pixel >= team.pixels || p >= height * width || o >= outputs) return;

  Path<T, T> path = {
      {rows + i * rs, columns + j * cs, rd, cd, kh, kw}, x + x_base + first.group * x_group + team.c_lane * x_channel,
      x_row, x_column, x_lanes, k_lanes, k_next, k_down, channels, c_lanes, team.c_lane};
  path.kernel = k + k_base + first.group * k_group + i * k_row + j * k_column + team.c_lane * k_channel + o * k_output;
  path.start();
  const T* outputs_here = y + y_base + first.group * y_group + i * y_row + j * y_column + o * y_channel;

  const Samples samples = {volumes, planes, x_volume, x_plane, y_volume, y_plane};
  const A cval = number<A>(cval_re, cval_im);
  while (path.more()) {
    if (path.stays(N)) sum_steps<true, N, V>(path, samples, outputs_here, y_channel, cval, add_up != 0);
    else sum_steps<false, N, V>(path, samples, outputs_here, y_channel, cval, add_up != 0);
  }
}
