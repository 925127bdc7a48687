// The counter-based random generator: the same numbers on every device, in any order.
#pragma once

#include "kernels/portable.h"

namespace bat_fast {

// Philox4x32-10 (Salmon et al. 2011): a counter and a key in, four random 32-bit words out.
struct Philox {
  uint32_t word[4];
};

BAT_HD Philox philox(uint64_t seed, uint32_t c0, uint32_t c1, uint64_t c23) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c2 = static_cast<uint32_t>(c23), c3 = static_cast<uint32_t>(c23 >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = static_cast<uint64_t>(c0) * 0xD2511F53u;
    const uint64_t b = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace bat_fast
