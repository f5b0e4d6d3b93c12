// Full kernels, one for every location and pair of channels:
//
//     y[g,s,o,i,j] = Σ_{m,n,c} k[m,n,g,i,j,c,o] x[g,s,c, rows[i*rs + m*rd], columns[j*cs + n*cd]]
//
// x (groups, samples, C_in, H, W), k (kh, kw, groups, H_out, W_out, C_in, C_out), y (groups, samples,
// C_out, H_out, W_out), all of any strides (counted in elements).  Samples of a group share its kernels.
// An index of -1 in `rows` or `columns` stands for `cval`.
//
// Each value of k is requested once for up to S samples, V along o at a time, IN_FLIGHT such vectors per
// thread before the first is used; local.cuh says how threads lie over k.  x is small beside k (one value
// for C_out of k) and read where it lies: lanes along o ask for the same pixel, which is one access, and
// the pixels of a block are neighbours, so that they find each other's in the first-level cache.  A tile
// in shared memory would cost barriers and cut channels and windows, and save no traffic of note.
#include "local.cuh"

template <int V, int S> constexpr int IN_FLIGHT = V < 8 && S == 1 ? 8 : 4;  // what registers allow

// A round of N steps: vectors of k, and where their pixels are; bit u of the masks belongs to step u.
template <class T, int V, int N> struct Round {
  Pack<T, V> k[N];
  const T* pixel[N];
  unsigned here, inside;

  template <bool STAYS> __device__ __forceinline__ void take(Path<T, const T>& path) {
    here = inside = 0;
#pragma unroll
    for (int u = 0; u < N; ++u) {
      const bool step = path.here();
      k[u] = Pack<T, V>();
      if (step) k[u] = load_once<T, V>(path.kernel);
      pixel[u] = path.pixel;
      here |= (unsigned)step << u;
      inside |= (unsigned)(step && path.inside) << u;
      path.step();
      if (!STAYS) path.turn();
    }
    if (STAYS) path.turn();
  }
};

// sums[s*V + v] += Σ_u k[u][v] * x[s, u]
template <class T, class A, int V, int S, int N>
__device__ __forceinline__ void add_products(A (&sums)[S * V], const Round<T, V, N>& round, long long x_sample, int active, A cval)
{
  constexpr int AT_ONCE = S == 1 ? N : 1;
#pragma unroll
  for (int u0 = 0; u0 < N; u0 += AT_ONCE) {
    A pixels[AT_ONCE][S];
#pragma unroll
    for (int u = u0; u < u0 + AT_ONCE; ++u) {
      const T* from = round.pixel[u];
#pragma unroll
      for (int s = 0; s < S; ++s) {
        A& pixel = pixels[u - u0][s] = round.here >> u & 1 ? cval : number<A>(0, 0);
        if (round.inside >> u & 1 && (S == 1 || s < active)) pixel = widen(*from);
        from += x_sample;
      }
    }
#pragma unroll
    for (int u = u0; u < u0 + AT_ONCE; ++u)
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const A value = widen(round.k[u].v[v]);
#pragma unroll
        for (int s = 0; s < S; ++s) sums[s * V + v] = multiply_add(value, pixels[u - u0][s], sums[s * V + v]);
      }
  }
}

// grid: one block per group, team.pixels pixels, V*o_lanes outputs and S samples (the samples fastest)
// dynamic shared memory: S * V * team.places() accumulators
template <class T, int V, int S>
__global__ void __launch_bounds__(THREADS, S == 1 ? 4 : 3)
local_correlate(
    const T* __restrict__ x, long long x_base, long long x_group, long long x_sample,
    long long x_channel, long long x_row, long long x_column, long long x_lanes,
    const T* __restrict__ k, long long k_base, long long k_group, long long k_row, long long k_column,
    long long k_channel, long long k_output, long long k_lanes, long long k_next, long long k_down,
    T* __restrict__ y, long long y_base, long long y_group, long long y_sample,
    long long y_channel, long long y_row, long long y_column,
    const long long* __restrict__ rows, int rs, int rd, const long long* __restrict__ columns, int cs, int cd,
    int kh, int kw, int height, int width, int samples, int channels, int outputs, int c_lanes, int o_lanes,
    double cval_re, double cval_im)
{
  typedef accumulator<T> A;
  constexpr int N = IN_FLIGHT<V, S>;
  const A cval = number<A>(cval_re, cval_im);
  extern __shared__ __align__(16) unsigned char shared[];
  A* totals = reinterpret_cast<A*>(shared);

  const Team team(c_lanes, o_lanes);
  const int pixels = height * width, places = team.places();
  const Share first(samples, S, outputs, V * o_lanes, pixels, team.pixels);
  const int active = min(S, samples - first.sample), kept = min(V * o_lanes, outputs - first.channel);
  const int p = first.pixel + team.pixel, i = p / width, j = p - i * width, o = team.o_lane * V;

  if (team.pixel < team.pixels && p < pixels && o < kept) {
    Path<T, const T> path = {
        {rows + i * rs, columns + j * cs, rd, cd, kh, kw},
        x + x_base + first.group * x_group + first.sample * x_sample + team.c_lane * x_channel,
        x_row, x_column, x_lanes, k_lanes, k_next, k_down, channels, c_lanes, team.c_lane};
    path.kernel = k + k_base + first.group * k_group + i * k_row + j * k_column + team.c_lane * k_channel
        + (first.channel + o) * k_output;
    path.start();

    A* own = totals + team.place();
    A sums[S * V];
#pragma unroll
    for (int n = 0; n < S * V; ++n) own[n * places] = sums[n] = number<A>(0, 0);
    for (int rounds = 1; path.more(); ++rounds) {
      Round<T, V, N> round;
      if (S == 1 && path.stays(N)) {
        round.template take<true>(path);
        add_products<T, A, V, S>(sums, round, x_sample, active, cval);
      } else {
        round.template take<false>(path);
        add_products<T, A, V, S>(sums, round, x_sample, active, cval);
      }
      if (rounds % (STRETCH / N) == 0 || !path.more()) move_sums(own, places, sums);
    }
  }
  __syncthreads();
  store_sums<S>(
      y + y_base + first.group * y_group + first.sample * y_sample + first.channel * y_channel,
      {y_sample, y_channel, y_row, y_column}, team, first.pixel, pixels, width, kept, active,
      [&](int pixel, int o, int s) {
        return sum_lanes(totals + (s * V + o % V) * places + pixel * team.pitch + o / V, o_lanes, c_lanes);
      });
}
