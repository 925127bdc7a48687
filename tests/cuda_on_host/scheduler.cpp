// The scheduler behind scheduler.h. Compiled without instrumentation: its own bookkeeping is no shared memory.
#include "scheduler.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "shared_memory.h"

namespace cuda_on_host {
namespace {

// CUDA's limits. Static and dynamic shared memory together: what every kernel gets, and the most that one can ask for.
constexpr std::size_t kShared = 48 << 10, kMostShared = 227 << 10, kThreads = 1024;

std::map<const void*, std::size_t> asked_for;  // dynamic shared memory, by the address of the kernel

// The char members are names for ThreadSanitizer. Barriers have two, used in turn: a fast thread must not hand its
// later writes to a slow one that is still leaving the barrier before. Each block has its own, so blocks stay
// unordered.
struct Block {
  Block(std::size_t dynamic_bytes, std::size_t limit)
      : fixed(kShared), dynamic(dynamic_bytes), bytes(dynamic_bytes), limit(limit) {
    dynamic_array = dynamic.take(dynamic_bytes, 256);
  }
  SharedMemory fixed, dynamic;
  void* dynamic_array;
  std::size_t bytes, limit;  // of static and dynamic shared memory
  std::map<const void*, void*> variables;
  char start = 0, barrier[2] = {}, warp_barrier[kThreads / kWarp][2] = {};
};

enum class State { ready, at_block, at_warp, left };

struct Thread {
  Place place;
  State state = State::ready;
  Site site;
  unsigned block_waits = 0, warp_waits = 0;
  uint64_t offer = kNobody, heard[kWarp];
};

// Kept from launch to launch. Blocks take turns on two teams: to ThreadSanitizer, what one team runs is ordered, since
// every fiber of it brings its own past to the first barrier.
using FiberTeam = std::vector<std::unique_ptr<Fiber>>;
FiberTeam teams[2];
std::vector<Thread> threads;  // of the running block, by rank
unsigned rank = 0;            // of the running thread
Block* block = nullptr;
const std::function<void()>* body = nullptr;
char launch_end, fences;

[[noreturn]] void live() {
  for (;;) {
    acquire(&block->start);
    (*body)();
    release(&launch_end);
    threads[rank].state = State::left;
    threads[rank].offer = kNobody;
    Fiber::pause();
  }
}

void wait(State state, Site site) {
  threads[rank].state = state;
  threads[rank].site = site;
  Fiber::pause();
}

[[noreturn]] void fail_at_barrier(const char* reason) {
  std::fprintf(stderr, "cuda_on_host: %s\n", reason);
  std::map<std::string, int> sites;
  for (const Thread& t : threads) {
    const bool left = t.state == State::left;
    ++sites[left ? "that have left" : std::string("at ") + t.site.file_name() + ":" + std::to_string(t.site.line())];
  }
  for (const auto& [site, count] : sites) std::fprintf(stderr, "  %d threads %s\n", count, site.c_str());
  std::_Exit(3);
}

// Lets threads [begin, end) go on if all of them that have not left are in `state`.
bool release_group(unsigned begin, unsigned end, State state) {
  const Thread* first = nullptr;
  for (unsigned i = begin; i < end; ++i) {
    const Thread& t = threads[i];
    if (t.state == State::left) continue;
    if (t.state != state) return false;
    if (first && (t.site.line() != first->site.line() || std::strcmp(t.site.file_name(), first->site.file_name()))) {
      fail_at_barrier("threads that must meet wait at different places");
    }
    first = &t;
  }
  if (!first) return false;
  for (unsigned i = begin; i < end; ++i) {
    if (threads[i].state != state) continue;
    if (state == State::at_warp) {
      for (unsigned k = 0; k < kWarp; ++k) threads[i].heard[k] = begin + k < end ? threads[begin + k].offer : kNobody;
    }
    threads[i].state = State::ready;
  }
  return true;
}

// Blocks run in both orders, so that a result that depends on the order differs between two blocks.
void run_block(FiberTeam& team, bool backwards) {
  const unsigned count = threads.size();
  for (bool more = true; more;) {
    for (unsigned i = 0; i < count; ++i) {
      rank = backwards ? count - 1 - i : i;
      if (threads[rank].state == State::ready) team[rank]->resume();
    }
    more = release_group(0, count, State::at_block);
    for (unsigned w = 0; w < count; w += kWarp) more |= release_group(w, std::min(w + kWarp, count), State::at_warp);
  }
  for (const Thread& t : threads) {
    if (t.state != State::left) fail_at_barrier("some threads wait for others that never come");
  }
}

void check_mask(unsigned mask) {
  const unsigned first = rank / kWarp * kWarp;
  for (unsigned k = 0; k < kWarp && first + k < threads.size(); ++k) {
    if (threads[first + k].state != State::left && !(mask >> k & 1)) fail("only whole warps can meet: mask 0xffffffff");
  }
}

}  // namespace

unsigned Place::lane() const { return rank % kWarp; }
const Place& here() { return threads[rank].place; }

void allow_dynamic_shared(const void* kernel, std::size_t bytes) {
  if (bytes > kMostShared) fail("a kernel asks for more than 227 KiB of dynamic shared memory");
  asked_for[kernel] = bytes;
}

void run_grid(dim3 grid, dim3 size, std::size_t dynamic_bytes, const std::function<void()>& kernel,
              const void* address) {
  const unsigned count = size.volume(), grid_count = grid.volume();
  if (count == 0 || count > kThreads) fail("a block has 1 to 1024 threads");
  if (grid_count == 0) fail("an empty grid is a launch error");
  if (grid.y > 65535 || grid.z > 65535) fail("gridDim.y and gridDim.z end at 65535");
  const auto asked = asked_for.find(address);
  if (dynamic_bytes > (asked == asked_for.end() ? kShared : asked->second)) {
    fail("more dynamic shared memory than the kernel gets: 48 KiB, or what cudaFuncSetAttribute asked for");
  }
  const std::size_t limit = asked == asked_for.end() ? kShared : kMostShared;
  for (FiberTeam& team : teams) {
    while (team.size() < count) team.push_back(std::make_unique<Fiber>(live));
  }
  std::vector<std::unique_ptr<Block>> blocks;  // all kept until the end, so that no address serves two of them
  body = &kernel;
  for (unsigned n = 0; n < grid_count; ++n) {
    const unsigned b = grid_count - 1 - n;  // an order that no kernel may rely on
    const uint3 at = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    threads.assign(count, {});
    for (unsigned t = 0; t < count; ++t) {
      threads[t].place = {{t % size.x, t / size.x % size.y, t / size.x / size.y}, at, size, grid};
    }
    block = blocks.emplace_back(std::make_unique<Block>(dynamic_bytes, limit)).get();
    release(&block->start);
    run_block(teams[n % 2], n % 2 == 0);
  }
  acquire(&launch_end);  // only now: between blocks it would order them
}

void wait_for_block(Site site) {
  char* order = &block->barrier[threads[rank].block_waits++ % 2];
  release(order);
  wait(State::at_block, site);
  acquire(order);
}

void wait_for_warp(unsigned mask, Site site) {
  check_mask(mask);
  char* order = &block->warp_barrier[rank / kWarp][threads[rank].warp_waits++ % 2];
  release(order);
  wait(State::at_warp, site);
  acquire(order);
}

const uint64_t* exchange(unsigned mask, uint64_t value, Site site) {
  check_mask(mask);
  threads[rank].offer = value;
  wait(State::at_warp, site);
  return threads[rank].heard;
}

void fence() {
  release(&fences);
  acquire(&fences);
}

void* shared_memory(const void* key, std::size_t bytes, std::size_t alignment) {
  void*& memory = block->variables[key];
  if (memory != nullptr) return memory;
  block->bytes += bytes;
  if (block->bytes > block->limit) fail("static and dynamic shared memory together are more than the kernel gets");
  return memory = block->fixed.take(bytes, alignment);
}
void* dynamic_shared_memory() { return block->dynamic_array; }

}  // namespace cuda_on_host
