// Stand-ins for kernels/copies.cuh: asynchronous copies. Included by shim.h alone.
//
// A copy lands only where the thread waits for it; until then its target holds NaN, and both moments count
// as writes for the search for races.
#pragma once

namespace emulator {

struct Copy {
  void* to;
  int size;  // 4, 8 or 16 bytes
  uint4 value;
};

const int MOST_COPIES = 256;  // of one thread
const int MOST_GROUPS = 64;

struct Copies {
  Copy copies[MOST_COPIES];
  int ends[MOST_GROUPS];  // of the groups
  int count, groups;
};

static Copies all_copies[1024];

EMULATOR_UNCHECKED void forget_copies() {
  all_copies[threadIdx.x].count = all_copies[threadIdx.x].groups = 0;
}

EMULATOR_UNCHECKED static void note_copy(void* to, int size, uint4 value) {
  Copies& mine = all_copies[threadIdx.x];
  if (mine.count == MOST_COPIES) abort();
  mine.copies[mine.count++] = {to, size, value};
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

}  // namespace emulator

template <class P>
EMULATOR_INLINE void copy_async(P* to, const P* from, bool exists = true) {
  if constexpr (sizeof(P) < 4) {
    *to = exists ? *from : P();
  } else {
    union Bits { uint4 all; P value; Bits() : all{~0u, ~0u, ~0u, ~0u} {} } bits, nothing;
    bits.all = {0, 0, 0, 0};
    if (exists) bits.value = *from;
    ::emulator::note_copy(to, sizeof(P), bits.all);
    *to = nothing.value;
  }
}

EMULATOR_INLINE void commit_copies() { ::emulator::close_group(); }

template <int N>
EMULATOR_INLINE void wait_for_copies() {
  ::emulator::Copy copy;
  while (::emulator::take_copy(N, &copy)) {
    if (copy.size == 16) *(uint4*)copy.to = copy.value;
    else if (copy.size == 8) *(uint2*)copy.to = {copy.value.x, copy.value.y};
    else *(unsigned*)copy.to = copy.value.x;
  }
}
