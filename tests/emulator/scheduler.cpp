// Runs the threads of a block as fibers, one at a time, and switches between them at barriers.
//
// A block advances in rounds. A round lets every runnable thread go on until it waits or returns;
// then the barriers that all of their threads have reached open. If none opens, though not all
// threads have returned, that is a deadlock: a missing or divergent barrier.
#include "runtime.h"

#include <algorithm>
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

enum class Status { RUNNABLE, AT_BLOCK_BARRIER, AT_WARP_BARRIER, RETURNED };
enum Switch { YIELDED = 1, FAILED = 2 };

struct Fiber {
  jmp_buf registers;
  ucontext_t context;  // only to start; setjmp and longjmp switch faster, without a system call
  char* stack;
  bool started;
  Status status;
  int line;       // of the barrier it waits at
  unsigned mask;  // of that barrier, if it is a warp's
  Index3 index;
};

struct Warp {
  unsigned epoch = 1;
  alignas(16) unsigned char slot[WARP_SIZE][64];  // what each lane offers to the others
  bool offered[WARP_SIZE] = {};
};

struct Failure {};

State state;
static const Launch* launch;
static std::vector<Fiber*> fibers;
static std::vector<Warp> warps;
static std::vector<unsigned char> votes;  // of block_count
static jmp_buf scheduler;
static std::string failure;
static uintptr_t failure_pc;

unsigned warp_epoch() { return warps[state.thread / WARP_SIZE].epoch; }

static void set_failure(uintptr_t pc, const char* text) {
  char where[200];
  snprintf(where, sizeof where, " [block (%u,%u,%u) thread (%u,%u,%u)]", blockIdx.x, blockIdx.y,
           blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  failure = std::string(text) + where;
  failure_pc = pc;
}

void fail(uintptr_t pc, const char* format, ...) {
  char text[1000];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  set_failure(pc, text);
  _longjmp(scheduler, FAILED);
}

// ---- switching ---------------------------------------------------------------------------------

static void yield() {
  if (!_setjmp(fibers[state.thread]->registers)) _longjmp(scheduler, YIELDED);
}

static void fiber_main() {
  for (;;) {  // the fiber outlives the block: its next resumption runs the next block
    launch->entry(launch->arguments);
    fibers[state.thread]->status = Status::RETURNED;
    yield();
  }
}

static void resume(unsigned thread) {
  Fiber& fiber = *fibers[thread];
  state.thread = thread;
  state.stack = (uintptr_t)fiber.stack;
  threadIdx = fiber.index;
  state.in_kernel = true;
  if (int reason = _setjmp(scheduler)) {
    state.in_kernel = false;
    if (reason == FAILED) throw Failure();
    return;
  }
  if (fiber.started) _longjmp(fiber.registers, 1);
  fiber.started = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = STACK_BYTES;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  setcontext(&fiber.context);
}

// ---- barriers and warp intrinsics, called by the kernel ----------------------------------------

void block_barrier(int line) {
  Fiber& fiber = *fibers[state.thread];
  fiber.status = Status::AT_BLOCK_BARRIER;
  fiber.line = line;
  yield();
}

int block_count(bool predicate, int line) {
  votes[state.thread] = predicate;
  block_barrier(line);
  const int count = std::count(votes.begin(), votes.begin() + state.threads, 1);
  block_barrier(line);  // nobody votes again before all have counted
  return count;
}

void warp_barrier(unsigned mask, int line) {
  const unsigned lane = state.thread % WARP_SIZE;
  if (!(mask >> lane & 1))
    fail(0, "line %d: lane %u calls a warp intrinsic but is not in its mask %08x", line, lane,
         mask);
  Fiber& fiber = *fibers[state.thread];
  fiber.status = Status::AT_WARP_BARRIER;
  fiber.line = line;
  fiber.mask = mask;
  yield();
}

static Warp& offer(unsigned mask, const void* value, size_t bytes, int line) {
  Warp& warp = warps[state.thread / WARP_SIZE];
  const unsigned lane = state.thread % WARP_SIZE;
  memcpy(warp.slot[lane], value, bytes);
  warp.offered[lane] = true;
  warp_barrier(mask, line);
  return warp;
}

static void withdraw(Warp& warp, unsigned mask, int line) {
  warp_barrier(mask, line);
  warp.offered[state.thread % WARP_SIZE] = false;
}

void warp_exchange(unsigned mask, void* value, size_t bytes, int source, int line) {
  source &= WARP_SIZE - 1;
  Warp& warp = offer(mask, value, bytes, line);
  if (!(mask >> source & 1) || !warp.offered[source])
    fail(0, "line %d: lane %u shuffles from lane %d, which does not take part (mask %08x)", line,
         state.thread % WARP_SIZE, source, mask);
  memcpy(value, warp.slot[source], bytes);
  withdraw(warp, mask, line);
}

void warp_gather(unsigned mask, const void* value, size_t bytes, void* all, int line) {
  if (bytes > sizeof Warp().slot[0]) fail(0, "line %d: warp_gather of %zu bytes", line, bytes);
  Warp& warp = offer(mask, value, bytes, line);
  for (unsigned lane = 0; lane < WARP_SIZE; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (!warp.offered[lane]) fail(0, "line %d: lane %u does not take part", line, lane);
    memcpy((char*)all + lane * bytes, warp.slot[lane], bytes);
  }
  withdraw(warp, mask, line);
}

unsigned warp_ballot(unsigned mask, bool predicate, int line) {
  Warp& warp = offer(mask, &predicate, 1, line);
  unsigned result = 0;
  for (unsigned lane = 0; lane < WARP_SIZE; ++lane)
    if (mask >> lane & 1 && warp.offered[lane] && warp.slot[lane][0]) result |= 1u << lane;
  withdraw(warp, mask, line);
  return result;
}

// ---- one block ---------------------------------------------------------------------------------

static std::vector<unsigned> ordering(unsigned count, long order, unsigned salt) {
  std::vector<unsigned> result(count);
  for (unsigned i = 0; i < count; ++i) result[i] = order == 1 ? count - 1 - i : i;
  if (order > 1) {
    unsigned random = order * 7919u + salt;
    for (unsigned i = count; i > 1; --i) {
      random = random * 1664525u + 1013904223u;
      std::swap(result[i - 1], result[(random >> 8) % i]);
    }
  }
  return result;
}

// A warp barrier opens when every thread of its mask waits there or has returned.
static bool release_warp_barrier(unsigned first, unsigned waiting) {
  const Fiber& fiber = *fibers[waiting];
  const unsigned mask = fiber.mask, end = std::min(first + WARP_SIZE, state.threads);
  const int line = fiber.line;
  for (unsigned t = first; t < end; ++t) {
    if (!(mask >> (t - first) & 1) || fibers[t]->status == Status::RETURNED) continue;
    const Fiber& other = *fibers[t];
    if (other.status != Status::AT_WARP_BARRIER || other.mask != mask || other.line != line)
      return false;
  }
  for (unsigned t = first; t < end; ++t)
    if (mask >> (t - first) & 1 && fibers[t]->status == Status::AT_WARP_BARRIER)
      fibers[t]->status = Status::RUNNABLE;
  ++warps[first / WARP_SIZE].epoch;
  return true;
}

static bool release_warp_barriers() {
  bool released = false;
  for (unsigned t = 0; t < state.threads; ++t)
    if (fibers[t]->status == Status::AT_WARP_BARRIER)
      released |= release_warp_barrier(t & ~(WARP_SIZE - 1), t);
  return released;
}

[[noreturn]] static void report_deadlock() {
  unsigned returned = 0, at_barrier = 0, who = 0;
  int line = -1, other_line = -1;
  for (unsigned t = 0; t < state.threads; ++t) {
    const Fiber& fiber = *fibers[t];
    returned += fiber.status == Status::RETURNED;
    at_barrier += fiber.status == Status::AT_BLOCK_BARRIER;
    if (fiber.status == Status::RETURNED) continue;
    if (line < 0) line = fiber.line, who = t;
    else if (fiber.line != line) other_line = fiber.line;
  }
  threadIdx = fibers[who]->index;
  char text[300];
  if (at_barrier == state.threads)
    snprintf(text, sizeof text, "divergent __syncthreads: threads wait at lines %d and %d", line,
             other_line);
  else
    snprintf(text, sizeof text,
             "deadlock at line %d: of %u threads %u wait at __syncthreads, %u have returned, "
             "%u wait at a warp barrier",
             line, state.threads, at_barrier, returned, state.threads - at_barrier - returned);
  set_failure(0, text);
  throw Failure();
}

// Opens the block's barrier if all threads wait at one line. False: all have returned.
static bool release_block_barrier() {
  unsigned returned = 0, here = 0;
  const int line = fibers[0]->line;
  for (unsigned t = 0; t < state.threads; ++t) {
    returned += fibers[t]->status == Status::RETURNED;
    here += fibers[t]->status == Status::AT_BLOCK_BARRIER && fibers[t]->line == line;
  }
  if (returned == state.threads) return false;
  if (here != state.threads) report_deadlock();
  ++state.epoch;
  for (unsigned t = 0; t < state.threads; ++t) fibers[t]->status = Status::RUNNABLE;
  return true;
}

static void run_block() {
  const std::vector<unsigned> order = ordering(state.threads, launch->order, state.block);
  state.epoch = 1;
  std::fill(warps.begin(), warps.end(), Warp());
  memory_begin_block();
  for (unsigned t = 0; t < state.threads; ++t) fibers[t]->status = Status::RUNNABLE;
  do {
    do {
      for (unsigned t : order)
        if (fibers[t]->status == Status::RUNNABLE) resume(t);
    } while (release_warp_barriers());
  } while (release_block_barrier());
  if (launch->check == CHECK_AND_PROFILE) profile_end_block();
}

// ---- one launch --------------------------------------------------------------------------------

static void prepare_threads() {
  while (fibers.size() < state.threads) {
    Fiber* fiber = new Fiber();
    fiber->stack = (char*)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fibers.push_back(fiber);
  }
  for (unsigned t = 0; t < state.threads; ++t)
    fibers[t]->index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
  warps.assign((state.threads + WARP_SIZE - 1) / WARP_SIZE, Warp());
  votes.assign(state.threads, 0);
}

static void run_grid() {
  const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
  for (unsigned block : ordering(blocks, launch->order, 12345)) {
    state.block = block;
    blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y};
    run_block();
  }
}

}  // namespace emulator

// Returns 0, or 1 with a message and the offset in the library of the faulty access (or 0).
extern "C" int emulator_launch(const emulator::Launch* request, const emulator::Argument* arguments,
                               int count, char* message, size_t message_size, uintptr_t* offset) {
  using namespace emulator;
  launch = request;
  blockDim = {request->block[0], request->block[1], request->block[2]};
  gridDim = {request->grid[0], request->grid[1], request->grid[2]};
  state = State();
  state.threads = blockDim.x * blockDim.y * blockDim.z;
  prepare_threads();
  memory_begin(*request, arguments, count);
  if (request->check == CHECK_AND_PROFILE) profile_begin();
  int result = 0;
  try {
    run_grid();
  } catch (Failure) {
    result = 1;
    for (Fiber* fiber : fibers) fiber->started = false;  // they stopped in the middle of the kernel
    snprintf(message, message_size, "%s", failure.c_str());
    *offset = failure_pc ? failure_pc - image_base() : 0;
  }
  state.in_kernel = false;
  memory_end();
  return result;
}
