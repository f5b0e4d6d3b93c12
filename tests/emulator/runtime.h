// What the parts of the emulator's runtime share: scheduler.cpp runs the threads, memory.cpp checks
// every access, profile.cpp counts memory transactions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

struct Index3 {
  unsigned x, y, z;
};
extern Index3 threadIdx, blockIdx, blockDim, gridDim;  // uint3 and dim3 to the kernel

namespace emulator {

constexpr size_t STACK_BYTES = 256 << 10;  // of each thread
constexpr unsigned WARP_SIZE = 32;

// Mirrored by ctypes in launch.py.
struct Launch {
  unsigned grid[3], block[3];
  size_t shared_bytes;
  long order;  // of threads and blocks: 0 forward, 1 backward, otherwise the seed of a permutation
  int check;   // one of the levels below
  void (*entry)(void* const*);
  void* const* arguments;
};
enum CheckLevel { CHECK_NOTHING, CHECK_BOUNDS, CHECK_RACES, CHECK_AND_PROFILE };

// Mirrored by ctypes in launch.py. An array that a kernel may touch.
struct Argument {
  uintptr_t low, high;        // its byte extent
  const unsigned char* mask;  // null, or for each byte of the extent: does it belong to an element?
  int read_only;
  const char* name;
};

// Where the emulation is.
struct State {
  unsigned thread;    // linear index within the block
  unsigned threads;   // per block
  unsigned block;     // linear index within the grid
  unsigned epoch;     // number of __syncthreads that the block has passed, from 1
  bool in_kernel;     // false while the runtime itself runs
  uintptr_t stack;    // lowest address of the running thread's stack
};
extern State state;

extern unsigned char* dynamic_shared;

unsigned warp_epoch();  // as state.epoch, for the running thread's warp and its barriers

// Ends the launch. `pc` is the return address of the faulty access, 0 where `format` names a line.
[[noreturn]] void fail(uintptr_t pc, const char* format, ...);

// ---- memory.cpp
void memory_begin(const Launch& launch, const Argument* arguments, int count);
void memory_begin_block();
void memory_end();
uintptr_t image_base();
void find_image();

// ---- profile.cpp
void profile_begin();
void profile_access(uintptr_t pc, uintptr_t address, size_t bytes, bool write, bool shared);
void profile_end_block();

}  // namespace emulator
