// What Python's tensors and modules are, told without a Python call for each attribute: a key for what was found out
// about a set of arguments (fastbert/ops/choose.py), and whether a module is still the one that was copied
// (fastbert/ops/snapshot.py). Tensors are read through their attributes; nothing here links to libtorch.
#include <cstring>
#include <string>
#include <vector>

#include "bindings/bindings.h"

namespace {

struct Names {
  PyObject* dtype = PyUnicode_InternFromString("dtype");
  PyObject* shape = PyUnicode_InternFromString("shape");
  PyObject* stride = PyUnicode_InternFromString("stride");
  PyObject* layout = PyUnicode_InternFromString("layout");
  PyObject* is_cpu = PyUnicode_InternFromString("is_cpu");
  PyObject* is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* requires_grad = PyUnicode_InternFromString("requires_grad");
  PyObject* version = PyUnicode_InternFromString("_version");
  PyObject* data_ptr = PyUnicode_InternFromString("data_ptr");
};

const Names& names() {
  static const Names all;
  return all;
}

py::object attribute(PyObject* x, PyObject* name) {
  return py::reinterpret_steal<py::object>(PyObject_GetAttr(x, name));
}

py::object call(PyObject* x, PyObject* method) {
  return py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(x, method));
}

void add(std::string& key, const void* bytes, size_t size) { key.append(static_cast<const char*>(bytes), size); }

void add_text(std::string& key, PyObject* text) {
  key.append(utf8_view(text));
  key.push_back('\0');
}

// False: not a tuple of integers, which symbolic sizes are not
bool add_integers(std::string& key, const py::object& tuple) {
  if (!tuple || !PyTuple_Check(tuple.ptr())) return false;
  const Py_ssize_t count = PyTuple_GET_SIZE(tuple.ptr());
  key.push_back(static_cast<char>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* item = PyTuple_GET_ITEM(tuple.ptr(), i);
    if (!PyLong_Check(item)) return false;
    const long long value = PyLong_AsLongLong(item);
    if (value == -1 && PyErr_Occurred()) return false;
    add(key, &value, sizeof value);
  }
  return true;
}

// False: not a plain tensor on the CPU
bool add_tensor(std::string& key, PyObject* x, const py::tuple& plain) {
  bool known = false;
  for (const auto kind : plain) known = known || reinterpret_cast<PyObject*>(Py_TYPE(x)) == kind.ptr();
  if (!known) return false;
  const Names& name = names();
  if (attribute(x, name.is_cpu).ptr() != Py_True) return false;
  // dtypes and layouts are made once: their addresses name them
  for (PyObject* which : {name.dtype, name.layout}) {
    const PyObject* value = attribute(x, which).ptr();
    if (!value) return false;
    add(key, &value, sizeof value);
  }
  key.push_back(attribute(x, name.requires_grad).ptr() == Py_True ? '1' : '0');
  key.push_back(call(x, name.is_neg).ptr() == Py_True ? '1' : '0');
  return add_integers(key, attribute(x, name.shape)) && add_integers(key, call(x, name.stride));
}

bool add_option(std::string& key, PyObject* value) {
  if (value == Py_None || PyBool_Check(value)) {
    key.push_back(value == Py_None ? 'n' : value == Py_True ? 't' : 'f');
  } else if (PyLong_CheckExact(value) || PyFloat_CheckExact(value)) {
    const double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) return false;
    key.push_back(PyLong_CheckExact(value) ? 'i' : 'd');
    add(key, &number, sizeof number);
  } else if (PyUnicode_CheckExact(value)) {
    key.push_back('s');
    add_text(key, value);
  } else {
    return false;
  }
  return true;
}

// Kinds, shapes, strides and dtypes of an op's arguments, and its options; None where they are no plain CPU tensors or
// the options no plain values. Equal keys are equal in all that a reason may look at, but not in the tensors' numbers.
py::object arguments_key(const py::tuple& plain, const py::dict& tensors, const py::dict& options) {
  std::string key;
  key.reserve(512);
  bool whole = true;
  for (const auto& [name, x] : tensors) {
    if (!PyUnicode_Check(name.ptr())) return py::none();
    add_text(key, name.ptr());
    if (x.is_none()) key.push_back('-');
    else whole = whole && add_tensor(key, x.ptr(), plain);
    if (!whole) break;
  }
  if (whole)
    for (const auto& [name, value] : options) {
      add_text(key, name.ptr());
      whole = whole && add_option(key, value.ptr());
    }
  PyErr_Clear();
  if (!whole) return py::none();
  return py::bytes(key);
}

// ---- snapshots ----
class Snapshot {
 public:
  // modules: (module, dict, dict, …), whose classes and whose dicts' values are compared by identity. tensors: compared
  // by address, strides and version counter (an inference tensor has none), and by the bytes at `samples`: (address,
  // size) of some elements, which are alive as long as the tensors' addresses stay.
  Snapshot(const py::list& modules, const py::list& tensors,
           const std::vector<std::pair<std::uintptr_t, size_t>>& samples)
      : samples_(samples) {
    for (const auto item : modules) {
      const auto parts = py::cast<py::tuple>(item);
      types_.push_back({py::reinterpret_borrow<py::object>(parts[0]), py::type::of(parts[0])});
      for (size_t i = 1; i < parts.size(); ++i) {
        Values values{py::cast<py::dict>(parts[i]), {}};
        for (const auto& [name, value] : values.dict) values.kept.push_back(py::reinterpret_borrow<py::object>(value));
        values_.push_back(std::move(values));
      }
    }
    for (const auto x : tensors) {
      tensors_.push_back(py::reinterpret_borrow<py::object>(x));
      states_.emplace_back();
      if (!state(x.ptr(), states_.back())) PyErr_Clear();
    }
    for (const auto& [address, size] : samples_) add(sampled_, reinterpret_cast<const void*>(address), size);
  }

  bool is_current() const {
    for (const auto& [module, type] : types_)
      if (reinterpret_cast<PyObject*>(Py_TYPE(module.ptr())) != type.ptr()) return false;
    for (const Values& values : values_)
      if (!same(values)) return false;
    std::string now;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      now.clear();
      if (!state(tensors_[i].ptr(), now)) PyErr_Clear();
      if (now != states_[i]) return false;
    }
    const char* expected = sampled_.data();
    for (const auto& [address, size] : samples_) {
      if (std::memcmp(reinterpret_cast<const void*>(address), expected, size) != 0) return false;
      expected += size;
    }
    return true;
  }

 private:
  struct Type {
    py::object module, type;
  };
  struct Values {
    py::dict dict;
    std::vector<py::object> kept;
  };

  static bool same(const Values& values) {
    if (static_cast<size_t>(PyDict_GET_SIZE(values.dict.ptr())) != values.kept.size()) return false;
    Py_ssize_t position = 0;
    PyObject *name = nullptr, *value = nullptr;
    for (size_t i = 0; PyDict_Next(values.dict.ptr(), &position, &name, &value); ++i)
      if (value != values.kept[i].ptr()) return false;
    return true;
  }

  static bool state(PyObject* x, std::string& out) {
    const py::object address = call(x, names().data_ptr);
    if (!address) return false;
    const unsigned long long number = PyLong_AsUnsignedLongLongMask(address.ptr());
    add(out, &number, sizeof number);
    if (!add_integers(out, call(x, names().stride))) return false;
    const py::object version = attribute(x, names().version);
    const long long count = version ? PyLong_AsLongLong(version.ptr()) : -1;
    PyErr_Clear();
    add(out, &count, sizeof count);
    return true;
  }

  std::vector<Type> types_;
  std::vector<Values> values_;
  std::vector<py::object> tensors_;
  std::vector<std::string> states_;
  std::vector<std::pair<std::uintptr_t, size_t>> samples_;
  std::string sampled_;
};

}  // namespace

void bind_identity(py::module_& m) {
  m.def("arguments_key", &arguments_key, py::arg("plain"), py::arg("tensors"), py::arg("options"));
  py::class_<Snapshot>(m, "Snapshot")
      .def(py::init<const py::list&, const py::list&, const std::vector<std::pair<std::uintptr_t, size_t>>&>(),
           py::arg("modules"), py::arg("tensors"), py::arg("samples"))
      .def("is_current", &Snapshot::is_current);
}
