// Tensor cores, from compute capability 8.0 on.  Inline PTX stands here and in copies.cuh alone.
//
// A matrix instruction multiplies 16 lines by 8 lines of 32 bytes of K: 16 halves, or 8 TF32 numbers.  Its
// fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16" and ".m16n8k8"), with g = lane / 4 and t = lane % 4:
//
//     left[r]   word t of 16 bytes of line g + r%2*8; the first 16 bytes for r < 2, then the second
//     right[r]  word t of 16 bytes of line g;         the first 16 bytes for r = 0, then the second
//     sums[r]   of left line g + r/2*8 and right line 2*t + r%2
//
// The emulator has stand-ins, tests/emulator/matrix.h.
#pragma once
#include "copies.cuh"
#include "numbers.cuh"

#ifndef CUVARCONV_EMULATOR

// Four matrices of 8 lines of 16 bytes: lane l says where line l%8 of matrix l/8 lies, and receives word
// l%4 of line l/4 of each matrix.
__device__ __forceinline__ void load_fragments(unsigned (&words)[4], const void* line)
{
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(line)) : "memory");
}

#define CUVARCONV_MMA(T, SHAPE, TYPE)                                                                      \
  __device__ __forceinline__ void multiply_fragments(                                                      \
      T, float (&sums)[4], const unsigned (&left)[4], unsigned right0, unsigned right1)                    \
  {                                                                                                        \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPE "." TYPE ".f32 "                           \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                         \
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                              \
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));      \
  }
CUVARCONV_MMA(__half, "m16n8k16", "f16")
CUVARCONV_MMA(__nv_bfloat16, "m16n8k16", "bf16")
CUVARCONV_MMA(float, "m16n8k8", "tf32")
#undef CUVARCONV_MMA

// To the nearest TF32 number; matrix instructions would cut the bits off.
__device__ __forceinline__ unsigned to_tf32(float value)
{
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

#endif
