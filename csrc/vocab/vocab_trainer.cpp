#include "vocab/vocab_trainer.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>

#include "text/utf8.h"

namespace fastbert {
namespace {

constexpr uint32_t kNoId = 0xFFFFFFFF;
constexpr auto kProgressEvery = std::chrono::milliseconds(100);
constexpr size_t kContinuationBytes = 2;  // "##"

// The code points of a word.
void read_word(const CountTable::Slot& slot, std::vector<uint32_t>& chars) {
  chars.clear();
  const uint8_t* const end = slot.bytes + slot.size;
  for (const uint8_t* p = slot.bytes; p < end;) chars.push_back(decode_utf8(p, end));
}

std::string to_utf8(uint32_t code_point) {
  uint8_t bytes[4];
  const int length = encode_utf8(code_point, bytes);
  return std::string(bytes, bytes + length);
}

// How often each character occurs.
CodePointMap<int64_t> count_characters(const CountTable& words) {
  CodePointMap<int64_t> frequency(0);
  std::vector<uint32_t> chars;
  int64_t room = std::numeric_limits<int64_t>::max();
  words.for_each([&](const CountTable::Slot& slot) {
    read_word(slot, chars);
    if (slot.count > room / static_cast<int64_t>(chars.size()))
      throw std::overflow_error("the pieces of the words add up to more than 2**63 - 1");
    room -= slot.count * static_cast<int64_t>(chars.size());
    for (const uint32_t c : chars) frequency[c] += slot.count;
  });
  return frequency;
}

}  // namespace

VocabTrainer::VocabTrainer(const CountTable& words, const VocabOptions& options) : options_(options) {
  for (const std::string& token : options_.special_tokens) add_piece(token);
  const CharacterIds ids = number_characters(words, choose_alphabet(words));
  std::vector<uint32_t> chars;
  words.for_each([&](const CountTable::Slot& slot) {
    read_word(slot, chars);
    if (chars.size() < 2) return;
    for (size_t i = 0; i < chars.size(); ++i) {
      if (ids.first.get(chars[i]) == kNoId) return;
      chars[i] = i == 0 ? ids.first.get(chars[i]) : ids.following.get(chars[i]);
    }
    merger_.add_word(chars, slot.count);
  });
  merger_.finish_words();
}

// The characters to keep, by code point.
std::vector<uint32_t> VocabTrainer::choose_alphabet(const CountTable& words) {
  std::vector<uint32_t> alphabet = options_.initial_alphabet;
  CodePointMap<int64_t> frequency = count_characters(words);
  for (const uint32_t c : alphabet) frequency[c] = 0;
  std::vector<uint32_t> others;
  frequency.for_each([&](uint32_t c, int64_t count) {
    if (count) others.push_back(c);
  });
  vocab_.num_characters = alphabet.size() + others.size();
  // stable: ties go to the smaller code point
  std::stable_sort(others.begin(), others.end(),
                   [&](uint32_t a, uint32_t b) { return frequency.get(a) > frequency.get(b); });
  const size_t room = options_.limit_alphabet > alphabet.size() ? options_.limit_alphabet - alphabet.size() : 0;
  if (others.size() > room) {
    vocab_.num_dropped = others.size() - room;
    others.resize(room);
  }
  alphabet.insert(alphabet.end(), others.begin(), others.end());
  std::sort(alphabet.begin(), alphabet.end());
  return alphabet;
}

// Gives ids to the alphabet, then to the "##" forms of characters that follow others in words that are kept.
VocabTrainer::CharacterIds VocabTrainer::number_characters(const CountTable& words,
                                                           const std::vector<uint32_t>& alphabet) {
  CharacterIds ids{CodePointMap<uint32_t>(kNoId), CodePointMap<uint32_t>(kNoId)};
  for (const uint32_t c : alphabet) ids.first[c] = add_piece(to_utf8(c));
  CodePointMap<uint8_t> follows(0);
  std::vector<uint32_t> chars;
  words.for_each([&](const CountTable::Slot& slot) {
    read_word(slot, chars);
    for (const uint32_t c : chars)
      if (ids.first.get(c) == kNoId) return;
    for (size_t i = 1; i < chars.size(); ++i) follows[chars[i]] = 1;
  });
  for (const uint32_t c : alphabet)
    if (follows.get(c)) ids.following[c] = add_piece("##" + to_utf8(c));
  vocab_.num_fixed = vocab_.tokens.size();
  return ids;
}

// The id of a piece, a new one unless it is there already.
uint32_t VocabTrainer::add_piece(const std::string& piece) {
  const auto [found, is_new] = ids_.emplace(piece, static_cast<uint32_t>(vocab_.tokens.size()));
  if (is_new) vocab_.tokens.push_back(piece);
  return found->second;
}

Vocab VocabTrainer::learn(const std::function<void(size_t)>& progress) {
  auto report_at = std::chrono::steady_clock::now() + kProgressEvery;
  while (vocab_.tokens.size() < options_.vocab_size) {
    const PairMerger::Best best = merger_.best();
    if (best.count == 0 || best.count < options_.min_frequency) break;
    merger_.merge(best, add_piece(vocab_.tokens[best.left] + vocab_.tokens[best.right].substr(kContinuationBytes)));
    const auto now = std::chrono::steady_clock::now();
    if (progress && now >= report_at) {
      progress(vocab_.tokens.size());
      report_at = now + kProgressEvery;
    }
  }
  return std::move(vocab_);
}

}  // namespace fastbert
