// Whether Unicode normalization to NFC can change a text. Most texts are in NFC already, and a look is much cheaper
// than normalizing.
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastbert {

// False: the text is in NFC. True: it may not be. For code points in 16 or 32 bits, as Python stores them; a text of
// Latin-1 only is always in NFC.
template <class Unit>
bool may_change_in_nfc(const Unit* text, size_t size);

}  // namespace fastbert
