// Counts what the memory system would have to do: for each memory instruction and warp, the 32-byte
// sectors of global memory that its lanes touch together, or the wavefronts of shared memory, which
// serves one 4-byte word of each bank at a time.
#include "runtime.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace emulator {

struct Line {  // one instruction
  uint64_t requests, bytes, transactions;
  bool shared, write;
};
struct Piece {  // what one lane asks for
  uintptr_t address;
  size_t bytes;
};
struct Request {  // the n-th execution of an instruction by a warp: its lanes go together
  uintptr_t pc;
  uint32_t visit;
  unsigned warp;
  bool operator<(const Request& other) const {
    return std::tie(pc, visit, warp) < std::tie(other.pc, other.visit, other.warp);
  }
};

static std::map<uintptr_t, Line> lines;
static std::map<Request, std::vector<Piece>> requests;
static std::unordered_map<uint64_t, uint32_t> visits;  // by instruction and thread

void profile_begin() {
  lines.clear();
  requests.clear();
  visits.clear();
}

void profile_access(uintptr_t pc, uintptr_t address, size_t bytes, bool write, bool shared) {
  const uint32_t visit = visits[(uint64_t)pc * 2048 + state.thread]++;
  requests[{pc, visit, state.thread / WARP_SIZE}].push_back({address, bytes});
  Line& line = lines[pc];
  line.shared = shared;
  line.write = write;
}

static uint64_t transactions(const std::vector<Piece>& pieces, bool shared) {
  const unsigned unit = shared ? 4 : 32;
  std::set<uintptr_t> units;
  for (const Piece& piece : pieces)
    for (uintptr_t u = piece.address / unit; u <= (piece.address + piece.bytes - 1) / unit; ++u)
      units.insert(u);
  if (!shared) return units.size();
  unsigned per_bank[32] = {}, worst = 0;
  for (uintptr_t word : units) worst = std::max(worst, ++per_bank[word % 32]);
  return worst;
}

void profile_end_block() {
  for (const auto& [request, pieces] : requests) {
    Line& line = lines[request.pc];
    ++line.requests;
    for (const Piece& piece : pieces) line.bytes += piece.bytes;
    line.transactions += transactions(pieces, line.shared);
  }
  requests.clear();
  visits.clear();
}

}  // namespace emulator

// Writes (offset, shared, write, requests, bytes, transactions) for each instruction, as launch.py
// reads it; returns the number of instructions.
extern "C" int emulator_profile(uint64_t* out, int capacity) {
  int count = 0;
  for (const auto& [pc, line] : emulator::lines) {
    if (count == capacity) break;
    uint64_t* row = out + 6 * count++;
    row[0] = pc - emulator::image_base();
    row[1] = line.shared;
    row[2] = line.write;
    row[3] = line.requests;
    row[4] = line.bytes;
    row[5] = line.transactions;
  }
  return count;
}
