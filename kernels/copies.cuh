// Asynchronous copies from global to shared memory: a thread starts them and goes on, so that neither registers
// nor occupancy bound what is in flight.  Copies come in groups; they are there once the thread has waited for
// theirs, for other threads after a barrier.  Before sm_80 a copy is there at once.
//
// The emulator has stand-ins, tests/emulator/copies.h.
#pragma once

#ifndef CUVARCONV_EMULATOR

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define CUVARCONV_COPIES 1
#endif

__device__ __forceinline__ unsigned shared_address(const void* memory)
{
  return (unsigned)__cvta_generic_to_shared(memory);
}

// *to = *from, or zeros where it does not exist; both are aligned to their size, 16 bytes or less.
template <class P> __device__ __forceinline__ void copy_async(P* to, const P* from, bool exists = true)
{
#ifdef CUVARCONV_COPIES
  constexpr int SIZE = sizeof(P);
  if constexpr (SIZE == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(exists ? SIZE : 0) : "memory");
  else if constexpr (SIZE >= 4)
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "n"(SIZE), "r"(exists ? SIZE : 0) : "memory");
  else
#endif
    *to = exists ? *from : P();
}

// End a group of copies, which may be empty.
__device__ __forceinline__ void commit_copies()
{
#ifdef CUVARCONV_COPIES
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait for the thread's groups but the last N.
template <int N> __device__ __forceinline__ void wait_for_copies()
{
#ifdef CUVARCONV_COPIES
  asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
#endif
}

#endif
