// A fiber, and what the sanitizers must be told about it.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

// Null where the program is linked without the sanitizer.
extern "C" {
#define BAT_WEAK __attribute__((weak))
BAT_WEAK void* __tsan_create_fiber(unsigned);
BAT_WEAK void* __tsan_get_current_fiber();
BAT_WEAK void __tsan_switch_to_fiber(void*, unsigned);
BAT_WEAK void __tsan_acquire(void*);
BAT_WEAK void __tsan_release(void*);
BAT_WEAK void __sanitizer_start_switch_fiber(void**, const void*, std::size_t);
BAT_WEAK void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*);
BAT_WEAK void __asan_poison_memory_region(const volatile void*, std::size_t);
BAT_WEAK void __asan_unpoison_memory_region(const volatile void*, std::size_t);
}

namespace cuda_on_host {

[[noreturn]] inline void fail(const char* reason) {
  std::fprintf(stderr, "cuda_on_host: %s\n", reason);
  std::_Exit(3);
}

// All that happened before release(p) happens before what follows acquire(p), as ThreadSanitizer sees it.
inline void release(void* p) {
  if (__tsan_release) __tsan_release(p);
}
inline void acquire(void* p) {
  if (__tsan_acquire) __tsan_acquire(p);
}
inline void close_memory(void* p, std::size_t bytes) {
  if (__asan_poison_memory_region) __asan_poison_memory_region(p, bytes);
}
inline void open_memory(void* p, std::size_t bytes) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(p, bytes);
}

// Runs life(), which never returns, on a stack of its own, whenever the main program calls resume(), until life()
// calls pause().
class Fiber {
 public:
  explicit Fiber(void (*life)()) : life_(life) {
    void* memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE)) fail("no memory for stacks");
    stack_ = static_cast<char*>(memory) + kGuard;
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStack;
    makecontext(&context_, &Fiber::begin, 0);
    if (__tsan_create_fiber) tsan_ = __tsan_create_fiber(0);
  }
  Fiber(const Fiber&) = delete;

  // Jumps rather than swapcontext: no system call, and no sanitizer in between that clears its notes on the stack.
  [[gnu::noinline]] void resume() {
    void* fake_stack = nullptr;
    current_ = this;
    if (__tsan_get_current_fiber) main_tsan_ = __tsan_get_current_fiber();
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&fake_stack, stack_, kStack);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(tsan_, kNoOrder);
    if (__builtin_setjmp(main_) == 0) enter();
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
  }

  [[gnu::noinline]] static void pause() {
    void* fake_stack = nullptr;
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&fake_stack, main_stack_, main_size_);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(main_tsan_, kNoOrder);
    if (__builtin_setjmp(current_->place_) == 0) leave();
    arrived(fake_stack);
  }

 private:
  static constexpr std::size_t kStack = 256 << 10, kGuard = 4096;
  static constexpr unsigned kNoOrder = 1;  // taking turns is no synchronisation

  [[noreturn, gnu::noinline]] void enter() {
    if (started_) __builtin_longjmp(place_, 1);
    started_ = true;
    setcontext(&context_);
    fail("no fiber");
  }
  [[noreturn, gnu::noinline]] static void leave() { __builtin_longjmp(main_, 1); }
  static void begin() {
    arrived(nullptr);
    current_->life_();
  }
  static void arrived(void* fake_stack) {
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(fake_stack, &main_stack_, &main_size_);
  }

  ucontext_t context_;  // of the beginning
  bool started_ = false;
  void* place_[5];  // of the last pause
  void (*life_)();
  char* stack_;
  void* tsan_ = nullptr;

  static inline Fiber* current_;
  static inline void* main_[5];
  static inline void* main_tsan_;
  static inline const void* main_stack_;
  static inline std::size_t main_size_;
};

}  // namespace cuda_on_host
