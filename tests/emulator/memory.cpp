// Checks every memory access of a kernel: bounds, alignment, const, uninitialised shared memory and
// data races.
//
// g++ -fsanitize=thread calls a __tsan_ function before each load and store, -fsanitize=bounds,...
// a __ubsan_ function at each fault. The sanitizers' libraries are not linked: these hooks are our
// own, and know about CUDA's threads, barriers and memory spaces.
#include "runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <link.h>
#include <sys/mman.h>

namespace emulator {

// The last write and the last reads of one byte. Blocks count from 1; 0: none.
struct History {
  uint32_t write_block, read_block;
  uint32_t write_epoch, read_epoch;            // the block's __syncthreads intervals
  uint32_t write_warp_epoch, read_warp_epoch;  // the warp's barrier intervals
  uint16_t writer, reader;
};
constexpr uint32_t SEVERAL_BLOCKS = ~0u;
// The writer is a thread, with the flag ATOMIC if it was an atomic. The reader is a thread, or
// ONE_WARP | warp for several threads of a warp, or SEVERAL for threads of several warps.
constexpr uint16_t ATOMIC = 0x8000, ONE_WARP = 0x4000, SEVERAL = 0x7fff;

struct Region {
  uintptr_t low, high;
  const unsigned char* mask;
  const char* name;
  bool read_only, shared;
  History* history;  // null: races are not tracked here
};

struct Span {
  uintptr_t low, high;
};

constexpr size_t SHARED_ROOM = 256 << 10;

unsigned char* dynamic_shared;
static unsigned char* shared_room;
static std::vector<Region> regions;
static std::vector<Span> image;   // of this library: its constants and globals
static Span static_shared;        // its thread-local block
static uintptr_t base;
static bool profiling;
static size_t shared_bytes;

uintptr_t image_base() { return base; }

// ---- setting up --------------------------------------------------------------------------------

static thread_local volatile char touch_thread_local;

static int find_own_image(dl_phdr_info* info, size_t, void* own_address) {
  std::vector<Span> spans;
  Span shared = {0, 0};
  bool own = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_LOAD) {
      const uintptr_t low = info->dlpi_addr + header.p_vaddr, high = low + header.p_memsz;
      own |= (uintptr_t)own_address >= low && (uintptr_t)own_address < high;
      spans.push_back({low, high});
    } else if (header.p_type == PT_TLS && info->dlpi_tls_data) {
      const uintptr_t low = (uintptr_t)info->dlpi_tls_data;
      shared = {low, low + header.p_memsz};
    }
  }
  if (!own) return 0;
  image = spans;
  static_shared = shared;
  base = info->dlpi_addr;
  return 1;
}

static void add_region(Span span, const unsigned char* mask, const char* name, bool read_only,
                       bool shared, bool track) {
  const size_t bytes = span.high - span.low;
  auto* history = track && !read_only && bytes ? (History*)calloc(bytes, sizeof(History)) : nullptr;
  regions.push_back({span.low, span.high, mask, name, read_only, shared, history});
}

void memory_begin(const Launch& launch, const Argument* arguments, int count) {
  touch_thread_local = 1;  // the block is allocated on first use, by each host thread
  dl_iterate_phdr(find_own_image, (void*)&memory_begin);
  if (!shared_room)
    shared_room = (unsigned char*)mmap(nullptr, 2 * SHARED_ROOM, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  dynamic_shared = shared_room + SHARED_ROOM / 2;
  shared_bytes = launch.shared_bytes;
  profiling = launch.check == CHECK_AND_PROFILE;
  const bool track = launch.check == CHECK_RACES;
  regions.clear();
  for (int i = 0; i < count; ++i) {
    const Argument& a = arguments[i];
    add_region({a.low, a.high}, a.mask, a.name, a.read_only, false, track);
  }
  const uintptr_t dynamic = (uintptr_t)dynamic_shared;
  const Span dynamic_span = {dynamic, dynamic + shared_bytes};
  add_region(dynamic_span, nullptr, "dynamic shared memory", false, true, track);
  add_region(static_shared, nullptr, "static shared memory", false, true, track);
}

// Shared memory starts as NaN, in every floating-point format.
void memory_begin_block() {
  memset(dynamic_shared, 0xFF, shared_bytes);
  if (static_shared.high > static_shared.low)
    memset((void*)static_shared.low, 0xFF, static_shared.high - static_shared.low);
  for (Region& region : regions)
    if (region.shared && region.history)
      memset(region.history, 0, (region.high - region.low) * sizeof(History));
}

void memory_end() {
  for (Region& region : regions) free(region.history);
  regions.clear();
}

// ---- bounds ------------------------------------------------------------------------------------

static Region* find_region(uintptr_t address) {
  for (Region& r : regions)
    if (address >= r.low && address < r.high && (!r.mask || r.mask[address - r.low])) return &r;
  return nullptr;
}

static bool in_image(uintptr_t address) {
  for (const Span& span : image)
    if (address >= span.low && address < span.high) return true;
  return false;
}

[[noreturn]] static void report_out_of_bounds(uintptr_t pc, uintptr_t address, size_t bytes,
                                              bool write) {
  const char* kind = write ? "write" : "read";
  const Region* nearest = nullptr;
  uintptr_t distance = ~(uintptr_t)0;
  for (const Region& r : regions) {
    if (address >= r.low && address < r.high)
      fail(pc, "%zu-byte %s out of bounds: byte %+lld of %s lies between the elements of the view",
           bytes, kind, (long long)(address - r.low), r.name);
    const uintptr_t away = address >= r.high ? address - r.high : r.low - address;
    if (away < distance) distance = away, nearest = &r;
  }
  if (!nearest) fail(pc, "%zu-byte %s out of bounds: no array", bytes, kind);
  const bool after = address >= nearest->high;
  fail(pc, "%zu-byte %s out of bounds: %llu bytes %s %s (%llu bytes)", bytes, kind,
       (unsigned long long)distance, after ? "past the end of" : "before the start of",
       nearest->name, (unsigned long long)(nearest->high - nearest->low));
}

static void check_whole_access(const Region& region, uintptr_t pc, uintptr_t address, size_t bytes,
                               size_t alignment, bool write) {
  const char* kind = write ? "write" : "read";
  const size_t offset = address - region.low;
  if (address + bytes > region.high)
    fail(pc, "%zu-byte %s straddles the end of %s", bytes, kind, region.name);
  for (size_t i = 0; region.mask && i < bytes; ++i)
    if (!region.mask[offset + i])
      fail(pc, "%zu-byte %s straddles the end of a row of %s", bytes, kind, region.name);
  if (address & (alignment - 1))
    fail(pc, "misaligned %zu-byte access at %s%+lld", bytes, region.name, (long long)offset);
  if (write && region.read_only) fail(pc, "write to read-only %s", region.name);
}

// ---- races -------------------------------------------------------------------------------------

struct Access {
  uint32_t block, epoch, warp_epoch;
  uint16_t thread, warp;
  bool write, atomic;
};

static bool after_last_write(const History& h, const Access& a) {
  const unsigned writer = h.writer & ~ATOMIC;
  if (!h.write_block || (a.atomic && h.writer & ATOMIC)) return true;
  if (h.write_block != a.block) return false;
  const bool warp_ordered = writer / WARP_SIZE == a.warp && h.write_warp_epoch < a.warp_epoch;
  return h.write_epoch < a.epoch || writer == a.thread || warp_ordered;
}

static bool readers_in_warp(const History& h, unsigned warp) {
  if (h.reader >= ONE_WARP) return h.reader == (ONE_WARP | warp);
  return h.reader / WARP_SIZE == warp;
}

static bool after_last_reads(const History& h, const Access& a) {
  if (!h.read_block) return true;
  if (h.read_block != a.block) return false;
  const bool warp_ordered = readers_in_warp(h, a.warp) && h.read_warp_epoch < a.warp_epoch;
  return h.read_epoch < a.epoch || h.reader == a.thread || warp_ordered;
}

static void remember_write(History& h, const Access& a) {
  h.write_block = a.block;
  h.write_epoch = a.epoch;
  h.write_warp_epoch = a.warp_epoch;
  h.writer = a.thread | (a.atomic ? ATOMIC : 0);
  if (h.read_block == a.block && h.read_epoch < a.epoch) h.read_block = 0;
}

static void remember_read(History& h, const Access& a) {
  if (h.read_block && h.read_block != a.block) {
    h.read_block = SEVERAL_BLOCKS;
    return;
  }
  const bool alone = !h.read_block || h.read_epoch < a.epoch || h.reader == a.thread ||
                     (readers_in_warp(h, a.warp) && h.read_warp_epoch < a.warp_epoch);
  if (alone) h.reader = a.thread;
  else h.reader = readers_in_warp(h, a.warp) ? ONE_WARP | a.warp : SEVERAL;
  h.read_block = a.block;
  h.read_epoch = a.epoch;
  h.read_warp_epoch = a.warp_epoch;
}

[[noreturn]] static void report_race(uintptr_t pc, const Region& region, size_t offset,
                                     const Access& a, const History& h, bool with_write) {
  const char* kind = a.atomic ? "atomic" : a.write ? "write" : "read";
  char who[60] = "several blocks";
  const unsigned thread = with_write ? h.writer & ~ATOMIC : h.reader;
  const unsigned block = with_write ? h.write_block : h.read_block;
  if (block != SEVERAL_BLOCKS && (with_write || thread < ONE_WARP))
    snprintf(who, sizeof who, "thread %u of block %u", thread, block - 1);
  else if (block != SEVERAL_BLOCKS)
    snprintf(who, sizeof who, "several threads of block %u", block - 1);
  fail(pc,
       "data race on %s%+lld: %s by thread %u of block %u, after a %s by %s "
       "with no barrier between",
       region.name, (long long)offset, kind, a.thread, a.block - 1, with_write ? "write" : "read",
       who);
}

static void check_races(Region& region, uintptr_t pc, size_t offset, size_t bytes,
                        const Access& a) {
  for (size_t i = offset; i < offset + bytes; ++i) {
    History& h = region.history[i];
    if (region.shared && !a.write && !h.write_block)
      fail(pc, "read of uninitialised shared memory: %s%+lld", region.name, (long long)i);
    if (!after_last_write(h, a)) report_race(pc, region, i, a, h, true);
    if (!a.write) {
      remember_read(h, a);
    } else {
      if (!after_last_reads(h, a)) report_race(pc, region, i, a, h, false);
      remember_write(h, a);
    }
  }
}

// ---- the entry of all checks -------------------------------------------------------------------

static void check_access(uintptr_t address, size_t bytes, size_t alignment, bool write, bool atomic,
                         uintptr_t pc) {
  if (!state.in_kernel || address - state.stack < STACK_BYTES) return;
  Region* region = find_region(address);
  if (!region) {
    if (in_image(address)) return;
    report_out_of_bounds(pc, address, bytes, write);
  }
  check_whole_access(*region, pc, address, bytes, alignment, write);
  if (profiling) profile_access(pc, address, bytes, write, region->shared);
  if (!region->history) return;
  const Access access = {state.block + 1, state.epoch, warp_epoch(), (uint16_t)state.thread,
                         (uint16_t)(state.thread / WARP_SIZE), write, atomic};
  check_races(*region, pc, address - region->low, bytes, access);
}

void note_atomic(const volatile void* address, size_t bytes, void* pc) {
  check_access((uintptr_t)address, bytes, bytes, true, true, (uintptr_t)pc);
}

}  // namespace emulator

// ---- the compiler's hooks ----------------------------------------------------------------------

#define CALLER (uintptr_t) __builtin_return_address(0)
#define ACCESS_HOOKS(bytes)                                                         \
  void __tsan_read##bytes(void* address) {                                          \
    emulator::check_access((uintptr_t)address, bytes, bytes, false, false, CALLER); \
  }                                                                                 \
  void __tsan_write##bytes(void* address) {                                         \
    emulator::check_access((uintptr_t)address, bytes, bytes, true, false, CALLER);  \
  }
#define FAULT_HOOK(name, text)                                     \
  void __ubsan_handle_##name(...) {                                \
    if (emulator::state.in_kernel) emulator::fail(CALLER, text);   \
  }

extern "C" {
ACCESS_HOOKS(1)
ACCESS_HOOKS(2)
ACCESS_HOOKS(4)
ACCESS_HOOKS(8)
ACCESS_HOOKS(16)
// Copies of structs: the GPU makes them member by member, and -fsanitize=alignment knows what
// alignment they need.
void __tsan_read_range(void* address, size_t bytes) {
  emulator::check_access((uintptr_t)address, bytes, 1, false, false, CALLER);
}
void __tsan_write_range(void* address, size_t bytes) {
  emulator::check_access((uintptr_t)address, bytes, 1, true, false, CALLER);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}

FAULT_HOOK(out_of_bounds, "index out of the bounds of an array")
FAULT_HOOK(add_overflow, "signed integer overflow in +")
FAULT_HOOK(sub_overflow, "signed integer overflow in -")
FAULT_HOOK(mul_overflow, "signed integer overflow in *")
FAULT_HOOK(negate_overflow, "signed integer overflow in negation")
FAULT_HOOK(divrem_overflow, "division by zero or overflow")
FAULT_HOOK(shift_out_of_bounds, "shift out of range")
FAULT_HOOK(type_mismatch_v1, "misaligned or null pointer")
FAULT_HOOK(pointer_overflow, "pointer overflow")
FAULT_HOOK(nonnull_arg, "null argument")
}
