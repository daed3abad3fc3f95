// Arithmetic as IEEE 754 has it, whatever the calling thread set. Flushing numbers next to zero to zero, as
// torch.set_flush_denormal does, would make ties of numbers that differ, and only in the threads it was called in.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace rsir {

class Ieee {
 public:
  Ieee() : before_(read()) { write(before_ & ~kFlush); }
  ~Ieee() { write(before_); }
  Ieee(const Ieee&) = delete;
  Ieee& operator=(const Ieee&) = delete;

 private:
#if defined(__x86_64__)
  using Word = unsigned int;
  static constexpr Word kFlush = 0x8040;  // results, and operands
  static Word read() { return _mm_getcsr(); }
  static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = std::uint64_t;
  static constexpr Word kFlush = Word{1} << 24;
  static Word read() {
    Word word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
#else
  using Word = unsigned int;
  static constexpr Word kFlush = 0;
  static Word read() { return 0; }
  static void write(Word) {}
#endif

  Word before_;
};

}  // namespace rsir
