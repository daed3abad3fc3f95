// The k-core of an interaction log.
#pragma once

#include <cstdint>

namespace rsir {

// Which of n events, edges between users and items, are left once those of fewer than k events are dropped again and
// again; codes of users are below num_users, those of items below num_items.
void k_core(std::int64_t n, const std::int64_t* users, const std::int64_t* items, std::int64_t num_users,
            std::int64_t num_items, std::int64_t k, bool* alive);

}  // namespace rsir
