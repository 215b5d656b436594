// Any vocabulary and any word: the trie splits as the plain rule does, or both find no way.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "system/input_error.h"
#include "text/wordpiece.h"

namespace {

using fastbert::WordPiece;

// The longest entry, again and again; {-1} when there is none.
std::vector<int32_t> plain_split(const std::map<std::string, int32_t>& known, const std::string& word) {
  std::vector<int32_t> result;
  for (size_t begin = 0; begin < word.size();) {
    size_t end = word.size();
    for (; end > begin; --end) {
      const auto found = known.find((begin ? "##" : "") + word.substr(begin, end - begin));
      if (found == known.end()) continue;
      result.push_back(found->second);
      break;
    }
    if (end == begin) return {-1};
    begin = end;
  }
  return result;
}

}  // namespace

// The input: entries, one a line; then, after a line of its own that is "=", words, one a line.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::string> lines{""};
  for (size_t i = 0; i < size; ++i) {
    if (data[i] == '\n') {
      lines.emplace_back();
    } else {
      lines.back().push_back(static_cast<char>(data[i]));
    }
  }
  std::vector<std::string> vocab;
  size_t i = 0;
  for (; i < lines.size() && lines[i] != "="; ++i) vocab.push_back(lines[i]);
  std::map<std::string, int32_t> known;
  for (size_t id = 0; id < vocab.size(); ++id) known[vocab[id]] = static_cast<int32_t>(id);
  const WordPiece wordpiece(vocab, -1, 200);
  std::vector<WordPiece::Piece> pieces;
  // without a "=" the entries are the words too
  for (i = i < lines.size() ? i + 1 : 0; i < lines.size(); ++i) {
    const std::string& word = lines[i];
    if (word.size() > 200) continue;
    std::vector<int32_t> got;
    try {
      wordpiece.split(reinterpret_cast<const uint8_t*>(word.data()), word.size(), word.size(), pieces);
      size_t begin = 0;
      for (const auto& piece : pieces) {
        if (piece.end <= begin) std::abort();
        begin = piece.end;
        got.push_back(piece.id);
      }
      if (begin != word.size()) std::abort();
    } catch (const fastbert::InputError&) {
      got = {-1};
    }
    if (got != plain_split(known, word)) std::abort();
  }
  return 0;
}
