// Repeated lines for Python (used by fastbert/inspect only).
#include "bindings/bindings.h"

#include <vector>

#include "data/line_table.h"

using fastbert::LineTable;

static uint64_t add(LineTable& table, const py::bytes& text, bool continues) {
  const std::string_view view = text;
  py::gil_scoped_release release;
  return table.add(as_bytes(view), view.size(), continues);
}

static std::vector<uint64_t> add_text(LineTable& table, const py::bytes& block) {
  const std::string_view view = block;
  std::vector<uint64_t> ended;
  py::gil_scoped_release release;
  table.add_text(as_bytes(view), view.size(), ended);
  return ended;
}

static py::dict totals(const LineTable& table) {
  const LineTable::Totals found = table.totals();
  py::dict result;
  result["lines"] = found.lines;
  result["documents"] = found.documents;
  result["exact_documents"] = found.exact_documents;
  result["near_documents"] = found.near_documents;
  result["long_words"] = found.long_words;
  result["estimated"] = static_cast<int>(found.estimated);
  result["sampled_lines"] = found.sampled_lines;
  result["distinct_lines"] = found.distinct_lines;
  result["near_lines"] = found.near_lines;
  result["bytes"] = found.bytes;
  result["distinct_bytes"] = found.distinct_bytes;
  result["repeated_bytes"] = found.repeated_bytes;
  result["shared_bytes"] = found.shared_bytes;
  return result;
}

// (beginning of the line, its size, count, documents) of the lines that so many documents have.
static py::list frequent(const LineTable& table, uint64_t least_documents) {
  py::list result;
  table.for_each([&](const LineTable::Line& line, std::string_view text) {
    if (line.documents >= least_documents)
      result.append(
          py::make_tuple(py::bytes(text.data(), text.size()), line.key & 0xFFFFFFFFu, line.count, line.documents));
  });
  return result;
}

void bind_lines(py::module_& m) {
  py::class_<LineTable>(m, "LineTable")
      .def(py::init<size_t, size_t, double>(), py::arg("max_lines"), py::arg("max_word_chars"), py::arg("min_shared"))
      .def("add", &add, py::arg("text"), py::arg("continues"))
      .def("add_text", &add_text, py::arg("block"))
      .def("end", &LineTable::end)
      .def("totals", &totals)
      .def("frequent", &frequent, py::arg("least_documents"));
}
