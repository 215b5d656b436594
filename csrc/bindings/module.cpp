// The module fastbert._C, and how the core's errors look in Python.
#include "bindings/bindings.h"

#include <cstring>
#include <exception>

#include "system/input_error.h"

static void translate_input_error(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const fastbert::InputError& input_error) {
    // a word cut in the middle of a character may stand in the message
    const py::object message = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(input_error.what(), static_cast<Py_ssize_t>(std::strlen(input_error.what())), "replace"));
    PyErr_SetObject(py::module_::import("fastbert.system.errors").attr("InputError").ptr(), message.ptr());
  }
}

PYBIND11_MODULE(_C, m) {
  m.doc() =
      "fastbert's C++ core; use it through fastbert.Tokenizer, fastbert.data.batches.masking, fastbert.data and "
      "fastbert.ops";
  py::register_exception_translator(&translate_input_error);
  bind_tokenizer(m);
  bind_vocab(m);
  bind_batches(m);
  bind_cpu(m);
  bind_attention(m);
  bind_loss(m);
  bind_rows(m);
  bind_muon(m);
  bind_identity(m);
  bind_lines(m);
  bind_encoder(m);
}
