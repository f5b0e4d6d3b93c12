// Stand-ins for kernels/mma.cuh: matrix instructions. Included by shim.h alone.
//
// Fragments lie as on the GPU, and sums are cut off rather than rounded, as tensor cores do.
#pragma once

namespace emulator {

EMULATOR_UNCHECKED static float cut_off(double value) {
  const float nearest = (float)value;
  const bool further = fabs((double)nearest) > fabs(value);  // infinity, too, unless it is meant
  return further ? nextafterf(nearest, 0.0f) : nearest;
}

struct Words {
  unsigned word[6];
};

EMULATOR_UNCHECKED static double element(__half, unsigned word, int which) {
  __half_raw raw;
  raw.x = (unsigned short)(word >> 16 * which);
  return __half2float(__half(raw));
}
EMULATOR_UNCHECKED static double element(__nv_bfloat16, unsigned word, int which) {
  __nv_bfloat16_raw raw;
  raw.x = (unsigned short)(word >> 16 * which);
  return __bfloat162float(__nv_bfloat16(raw));
}
EMULATOR_UNCHECKED static double element(float, unsigned word, int) {
  word &= 0xffffe000u;
  float value;
  memcpy(&value, &word, sizeof value);
  return value;
}

// sums += left * right, given the fragments of all lanes: left in words 0-3, right in words 4 and 5.
template <class T>
EMULATOR_UNCHECKED void multiply_all(T type, float (&sums)[4], const Words (&lanes)[32]) {
  const int each = 4 / sizeof(T);
  for (int r = 0; r < 4; ++r) {
    const int row = lane() / 4 + r / 2 * 8, column = lane() % 4 * 2 + r % 2;
    double sum = sums[r];
    for (int k = 0; k < 8 * each; ++k) {
      const int half = k / (4 * each), t = k / each % 4;
      const unsigned left = lanes[row % 8 * 4 + t].word[half * 2 + row / 8];
      const unsigned right = lanes[column * 4 + t].word[4 + half];
      sum += element(type, left, k % each) * element(type, right, k % each);
    }
    sums[r] = cut_off(sum);
  }
}

}  // namespace emulator

EMULATOR_INLINE void load_fragments(unsigned (&words)[4], const void* line, int at = __builtin_LINE()) {
  struct Line { unsigned word[4]; };
  const uint4 mine = *(const uint4*)line;
  Line all[32];
  ::emulator::warp_gather(0xffffffffu, &mine, sizeof mine, all, at);
  const int lane = ::emulator::lane();
  for (int r = 0; r < 4; ++r) words[r] = all[r * 8 + lane / 4].word[lane % 4];
}

template <class T>
EMULATOR_INLINE void multiply_fragments(T type, float (&sums)[4], const unsigned (&left)[4],
                                        unsigned right0, unsigned right1, int at = __builtin_LINE()) {
  const ::emulator::Words mine = {{left[0], left[1], left[2], left[3], right0, right1}};
  ::emulator::Words all[32];
  ::emulator::warp_gather(0xffffffffu, &mine, sizeof mine, all, at);
  ::emulator::multiply_all(type, sums, all);
}

EMULATOR_INLINE unsigned to_tf32(float value) {
  const unsigned bits = __float_as_uint(value);
  return isfinite(value) ? (bits + 0x1000u) & 0xffffe000u : bits;
}
