// The user's input is at fault, not this code: becomes fastbert.system.errors.InputError in Python.
#pragma once
#include <stdexcept>

namespace fastbert {

struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace fastbert
