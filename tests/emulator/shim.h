// Lets g++ compile a CUDA kernel source, for the emulator's runtime to run on one CPU thread.
//
// A kernel is ordinary C++ apart from four things: the words __shared__, __constant__ and
// __launch_bounds__, the built-in variables, barriers and warp intrinsics, and the arithmetic
// intrinsics (intrinsics.h). This header supplies them; CUDA's own headers do the rest.
// Every CUDA thread is a fiber, so a barrier is a call that switches to another fiber.
#pragma once
#define CUVARCONV_EMULATOR 1  // for stand-ins of inline PTX

#include <math.h>  // cmath, and ::isinf and its friends

#include <cassert>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <cxxabi.h>

#include <vector_types.h>
#include <vector_functions.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>

#undef __shared__
#undef __constant__
#undef __launch_bounds__
#define __shared__ thread_local  // static shared memory is the library's thread-local block
#define __constant__ static
#define __launch_bounds__(...)

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace emulator {

extern unsigned char* dynamic_shared;  // its size is that of the launch, to the byte

void block_barrier(int line);
int block_count(bool predicate, int line);  // a barrier; how many threads' predicates are true
void warp_barrier(unsigned mask, int line);

// Replaces `value` by that of lane `source`.
void warp_exchange(unsigned mask, void* value, size_t bytes, int source, int line);

// Copies the values of all 32 lanes, of at most 64 bytes each, to `all`: for stand-ins of matrix
// instructions.
void warp_gather(unsigned mask, const void* value, size_t bytes, void* all, int line);

unsigned warp_ballot(unsigned mask, bool predicate, int line);

// Tells the memory checker about a read-modify-write, which the caller then does unchecked.
void note_atomic(const volatile void* address, size_t bytes, void* pc);

inline unsigned mask_or_all(unsigned mask = 0xffffffffu) { return mask; }
inline int width_or_warp(int width = 32) { return width; }

inline unsigned lane() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
}

// ---- the kernel's signature, for the check of the arguments -----------------------------------

template <class T>
constexpr size_t size_of() {
  if constexpr (std::is_void_v<T>) return 0;
  else return sizeof(T);
}

template <class T>
constexpr size_t align_of() {
  if constexpr (std::is_void_v<T>) return 1;
  else return alignof(T);
}

// Appends "is a pointer|pointee is const|size|alignment|type;" for one parameter.
template <class Parameter>
void describe(std::string& text) {
  using Pointee = std::remove_pointer_t<Parameter>;
  using Type = std::remove_cv_t<Pointee>;
  char* name = abi::__cxa_demangle(typeid(Type).name(), nullptr, nullptr, nullptr);
  text += std::to_string(std::is_pointer_v<Parameter>) + "|" +
          std::to_string(std::is_const_v<Pointee>) + "|" + std::to_string(size_of<Type>()) + "|" +
          std::to_string(align_of<Type>()) + "|" + name + ";";
  free(name);
}

// The emulator's own code must not be instrumented as if it were the kernel's.
#define EMULATOR_UNCHECKED __attribute__((noinline, no_sanitize("thread", "undefined")))

void forget_copies();  // of the block that this thread ran before

template <auto Function>
struct Kernel;

template <class... Parameters, void (*Function)(Parameters...)>
struct Kernel<Function> {
  template <size_t... I>
  EMULATOR_UNCHECKED static void call(void* const* arguments, std::index_sequence<I...>) {
    Function(*static_cast<std::remove_reference_t<Parameters>*>(arguments[I])...);
  }
  static void run(void* const* arguments) {
    forget_copies();
    call(arguments, std::index_sequence_for<Parameters...>());
  }
  static const char* signature() {
    static std::string text;
    if (text.empty()) (describe<Parameters>(text), ...);
    return text.c_str();
  }
};

// ---- shuffles: each names the source lane, as the PTX manual does ------------------------------

#define EMULATOR_INLINE static inline __attribute__((always_inline))

template <class T>
EMULATOR_INLINE T shuffle(unsigned mask, T value, int source, int line) {
  static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");
  warp_exchange(mask, &value, sizeof value, source, line);
  return value;
}

template <class T>
EMULATOR_INLINE T shuffle_index(unsigned mask, T value, int index, int width, int line) {
  const int me = lane();
  return shuffle(mask, value, (me & -width) + (index & (width - 1)), line);
}

template <class T>
EMULATOR_INLINE T shuffle_down(unsigned mask, T value, int delta, int width, int line) {
  const int me = lane();
  return shuffle(mask, value, (me & (width - 1)) + delta < width ? me + delta : me, line);
}

template <class T>
EMULATOR_INLINE T shuffle_up(unsigned mask, T value, int delta, int width, int line) {
  const int me = lane();
  return shuffle(mask, value, (me & (width - 1)) >= delta ? me - delta : me, line);
}

template <class T>
EMULATOR_INLINE T shuffle_xor(unsigned mask, T value, int bits, int width, int line) {
  const int me = lane(), source = me ^ bits;
  return shuffle(mask, value, source < (me & -width) + width ? source : me, line);
}

}  // namespace emulator

#define __syncthreads() ::emulator::block_barrier(__LINE__)
#define __syncthreads_count(p) ::emulator::block_count((p), __LINE__)
#define __syncthreads_or(p) (::emulator::block_count((p), __LINE__) != 0)
#define __syncthreads_and(p) (::emulator::block_count(!(p), __LINE__) == 0)
#define __syncwarp(...) ::emulator::warp_barrier(::emulator::mask_or_all(__VA_ARGS__), __LINE__)
#define __threadfence()
#define __threadfence_block()
#define __ballot_sync(mask, p) ::emulator::warp_ballot(mask, (p), __LINE__)
#define __any_sync(mask, p) (::emulator::warp_ballot(mask, (p), __LINE__) != 0)
#define __all_sync(mask, p) (::emulator::warp_ballot(mask, !(p), __LINE__) == 0)
#define EMULATOR_SHUFFLE(kind, mask, value, lanes, ...) \
  ::emulator::shuffle_##kind(mask, value, lanes, ::emulator::width_or_warp(__VA_ARGS__), __LINE__)
#define __shfl_sync(mask, value, source, ...) \
  EMULATOR_SHUFFLE(index, mask, value, source, __VA_ARGS__)
#define __shfl_down_sync(mask, value, delta, ...) \
  EMULATOR_SHUFFLE(down, mask, value, delta, __VA_ARGS__)
#define __shfl_up_sync(mask, value, delta, ...) \
  EMULATOR_SHUFFLE(up, mask, value, delta, __VA_ARGS__)
#define __shfl_xor_sync(mask, value, bits, ...) \
  EMULATOR_SHUFFLE(xor, mask, value, bits, __VA_ARGS__)

#include "intrinsics.h"
#include "copies.h"
#include "matrix.h"

// One pair of C entry points for each kernel that was asked for, appended to its source.
#define EMULATOR_KERNEL(index, ...)                                                                \
  extern "C" void emulator_run_##index(void* const* arguments) {                                   \
    ::emulator::Kernel<&__VA_ARGS__>::run(arguments);                                              \
  }                                                                                                \
  extern "C" const char* emulator_signature_##index() {                                            \
    return ::emulator::Kernel<&__VA_ARGS__>::signature();                                          \
  }

// After CUDA's headers, which must take their host branches: only the kernel source sees it.
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
