// Reading ahead: copies from global to shared memory that a thread starts and does not wait for, so that neither
// registers nor occupancy bound what is in flight.  A thread reads only what it has copied itself, which needs no
// barrier.  Before sm_80 it waits.
#pragma once

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800 && !defined(CUVARCONV_EMULATOR)
#define CUVARCONV_COPIES_AHEAD 1
#endif

// *to = *from; both are aligned to their size, 16 bytes or less.
template <class P> __device__ __forceinline__ void copy_ahead(P* to, const P* from)
{
#ifdef CUVARCONV_COPIES_AHEAD
  const unsigned shared = (unsigned)__cvta_generic_to_shared(to);
  const size_t global = __cvta_generic_to_global(from);
  if constexpr (sizeof(P) == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
  else if constexpr (sizeof(P) >= 4)
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared), "l"(global), "n"(sizeof(P)) : "memory");
  else
    *to = *from;
#else
  *to = *from;
#endif
}

// End a batch of copies, which may be empty.
__device__ __forceinline__ void end_batch()
{
#ifdef CUVARCONV_COPIES_AHEAD
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until the thread's batches but the last `LEFT` have arrived.
template <int LEFT> __device__ __forceinline__ void wait_for_batches()
{
#ifdef CUVARCONV_COPIES_AHEAD
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}
