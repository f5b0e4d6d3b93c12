// Stand-ins for kernels/mma.cuh: matrix instructions and asynchronous copies. Included by shim.h alone.
//
// Fragments lie as on the GPU, and sums are cut off rather than rounded, as tensor cores do. A copy
// lands only where the thread waits for it; until then its target holds NaN, and both moments count
// as writes for the search for races.
#pragma once

namespace emulator {

struct Copy {
  uint4* to;
  uint4 value;
};

const int MOST_COPIES = 256;  // of one thread
const int MOST_GROUPS = 16;

struct Copies {
  Copy copies[MOST_COPIES];
  int ends[MOST_GROUPS];  // of the groups
  int count, groups;
};

static Copies all_copies[1024];

EMULATOR_UNCHECKED void forget_copies() {
  all_copies[threadIdx.x].count = all_copies[threadIdx.x].groups = 0;
}

EMULATOR_UNCHECKED static void note_copy(uint4* to, uint4 value) {
  Copies& mine = all_copies[threadIdx.x];
  if (mine.count == MOST_COPIES) abort();
  mine.copies[mine.count++] = {to, value};
}

EMULATOR_UNCHECKED static void close_group() {
  Copies& mine = all_copies[threadIdx.x];
  if (mine.groups == MOST_GROUPS) abort();
  mine.ends[mine.groups++] = mine.count;
}

// Whether a copy of all groups but the last `left` remains; it is taken.
EMULATOR_UNCHECKED static bool take_copy(int left, Copy* copy) {
  Copies& mine = all_copies[threadIdx.x];
  while (mine.groups > left && mine.ends[0] == 0) {
    --mine.groups;
    for (int g = 0; g < mine.groups; ++g) mine.ends[g] = mine.ends[g + 1];
  }
  if (mine.groups <= left) return false;
  *copy = mine.copies[0];
  --mine.count;
  for (int c = 0; c < mine.count; ++c) mine.copies[c] = mine.copies[c + 1];
  for (int g = 0; g < mine.groups; ++g) --mine.ends[g];
  return true;
}

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

EMULATOR_INLINE void copy_async(void* to, const void* from, bool exists) {
  uint4 value = {0, 0, 0, 0};
  if (exists) value = *(const uint4*)from;
  ::emulator::note_copy((uint4*)to, value);
  *(uint4*)to = {~0u, ~0u, ~0u, ~0u};
}

EMULATOR_INLINE void commit_copies() { ::emulator::close_group(); }

template <int N>
EMULATOR_INLINE void wait_for_copies() {
  ::emulator::Copy copy;
  while (::emulator::take_copy(N, &copy)) *copy.to = copy.value;
}
