#include "vocab_trainer.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>

#include "unicode.h"
#include "utf8.h"
#include "word_counter.h"

namespace fastbert {
namespace {

constexpr uint32_t kNoId = 0xFFFFFFFF;
constexpr auto kProgressEvery = std::chrono::milliseconds(100);
constexpr size_t kContinuationBytes = 2;  // "##"

// The code points of a word; false for one that is too long to matter.
bool read_word(const CountTable::Slot& slot, std::vector<uint32_t>& chars) {
  chars.clear();
  const uint8_t* const end = slot.bytes + slot.size;
  for (const uint8_t* p = slot.bytes; p < end;) {
    chars.push_back(decode_utf8(p, end));
    if (chars.size() > kMaxWordChars) return false;
  }
  return true;
}

std::string to_utf8(uint32_t code_point) {
  uint8_t bytes[4];
  const int length = encode_utf8(code_point, bytes);
  return std::string(bytes, bytes + length);
}

// How often each character occurs.
std::vector<int64_t> count_characters(const CountTable& words) {
  std::vector<int64_t> frequency(kNumCodePoints);
  std::vector<uint32_t> chars;
  int64_t room = std::numeric_limits<int64_t>::max();
  words.for_each([&](const CountTable::Slot& slot) {
    if (!read_word(slot, chars)) return;
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
  number_characters(words, choose_alphabet(count_characters(words)));
  std::vector<uint32_t> chars;
  words.for_each([&](const CountTable::Slot& slot) {
    if (!read_word(slot, chars) || chars.size() < 2) return;
    for (size_t i = 0; i < chars.size(); ++i) {
      if (first_ids_[chars[i]] == kNoId) return;
      chars[i] = i == 0 ? first_ids_[chars[i]] : following_ids_[chars[i]];
    }
    merger_.add_word(chars, slot.count);
  });
  merger_.finish_words();
  first_ids_ = {};
  following_ids_ = {};
}

// The characters to keep, by code point.
std::vector<uint32_t> VocabTrainer::choose_alphabet(const std::vector<int64_t>& frequency) {
  std::vector<bool> is_initial(kNumCodePoints);
  for (const uint32_t c : options_.initial_alphabet) is_initial[c] = true;
  std::vector<uint32_t> alphabet = options_.initial_alphabet;
  std::vector<uint32_t> others;
  for (uint32_t c = 0; c < kNumCodePoints; ++c)
    if (frequency[c] && !is_initial[c]) others.push_back(c);
  vocab_.num_characters = alphabet.size() + others.size();
  // stable: ties go to the smaller code point
  std::stable_sort(others.begin(), others.end(),
                   [&](uint32_t a, uint32_t b) { return frequency[a] > frequency[b]; });
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
void VocabTrainer::number_characters(const CountTable& words, const std::vector<uint32_t>& alphabet) {
  first_ids_.assign(kNumCodePoints, kNoId);
  following_ids_.assign(kNumCodePoints, kNoId);
  for (const uint32_t c : alphabet) first_ids_[c] = add_piece(to_utf8(c));
  std::vector<bool> follows(kNumCodePoints);
  std::vector<uint32_t> chars;
  words.for_each([&](const CountTable::Slot& slot) {
    if (!read_word(slot, chars)) return;
    for (const uint32_t c : chars)
      if (first_ids_[c] == kNoId) return;
    for (size_t i = 1; i < chars.size(); ++i) follows[chars[i]] = true;
  });
  for (const uint32_t c : alphabet)
    if (follows[c]) following_ids_[c] = add_piece("##" + to_utf8(c));
  vocab_.num_fixed = vocab_.tokens.size();
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
