// All that is written over the Isa vectors of the unit that includes it, as one table of functions.
#pragma once

#include "isa/dense.hpp"
#include "isa/dots.hpp"
#include "isa/encode.hpp"
#include "isa/layer.hpp"
#include "isa/scan.hpp"

namespace {

constexpr rsir::Unit kUnit = {
    Isa::kName,         Isa::kHeight,         kWidth,
    scan,               dots,                 half_dots,     burn,
    product,            product_by<Pairs>,    dot,           raise_tops,
    exponentiate,       exponentiate_pairs,   layer_forward, layer_backward,
    encode_layer,       step_layer,           adam,
};

}  // namespace
