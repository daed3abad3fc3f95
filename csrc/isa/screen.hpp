// A scan of the catalogue in whole numbers of eight bits, which says of few items that they have to be scored exactly.
// catalogue/codes.hpp makes the codes and proves how far their products lie from the logits.
//
// Only plain pointers cross this border; see isa/unit.hpp for why.
#pragma once

#include <cstdint>

namespace rsir {

constexpr std::int64_t kScreenWidth = 48;    // items in a block of codes
constexpr std::int64_t kScreenHeight = 8;    // query rows in a register tile
constexpr std::int64_t kScreenPending = 96;  // ids of a row that wait for their exact logits

// "Score" below is the product of an item's codes and a row's, a whole number.
struct ScreenArgs {
  const std::uint8_t* codes;  // [block][quad][kScreenWidth][4]: four dimensions of an item are one quad
  std::int64_t quads;
  std::int64_t num_items;
  std::int64_t block_begin, block_end;

  const std::int8_t* queries;  // (num_rows, 4 quads)
  std::int64_t num_rows;
  const unsigned char* skip;  // (num_rows,) rows that are not screened

  // Counting: an item may count where its score is above maybe[row], and does where it is above sure[row].
  const std::int32_t* maybe;  // (num_rows,), or null when nothing is counted
  const std::int32_t* sure;
  const std::int32_t* ahead;  // (num_rows,) counts begin at -ahead[row]; or null
  std::int64_t limit;         // a row whose count reaches it is dropped
  std::int64_t* counts;       // out (num_rows,): exact; at least limit when the row was dropped
  // How many of these items count, by their exact logits.
  std::int64_t (*count_exactly)(const void* context, std::int64_t row, const std::int32_t* ids, std::int64_t n);
  const void* context;
  std::int64_t budget;  // items of a row that may be counted exactly; one that needs more gives up

  // Selection: candidates are all items not excluded whose score is at least that of the k-th best less slack[row].
  std::int64_t k;                        // 0: none
  const std::int32_t* least;             // (num_rows,) lower scores and this one are not collected; or null
  const std::int32_t* slack;             // (num_rows,)
  const std::int32_t* excluded;          // ids, ascending within a row (duplicates allowed); or null
  const std::int64_t* excluded_offsets;  // (num_rows + 1,)
  std::int64_t slots;                    // a row; a multiple of 16; one that needs more gives up
  std::int32_t* scores;                  // out (num_rows, slots), 64-byte aligned
  std::int32_t* ids;                     // out (num_rows, slots), 64-byte aligned; ascending
  std::int64_t* filled;                  // out (num_rows,)

  unsigned char* gave_up;  // out (num_rows,): rows whose answers mean nothing

  // Scratch. capacity = num_rows rounded up to a multiple of kScreenHeight.
  std::int32_t* tiles;      // capacity * quads
  std::int32_t* lowest;     // capacity: scores of the row at each position that are not above it are passed over
  std::int32_t* threshold;  // num_rows
  std::int32_t* row_at;     // capacity
  std::int64_t* cursor;     // num_rows: place in the row's excluded list
  std::int64_t* full_at;    // num_rows: with more candidates a row is cut
  std::int32_t* pending;    // num_rows * kScreenPending
  std::int64_t* waiting;    // num_rows
  std::int64_t* spent;      // num_rows
};

}  // namespace rsir
