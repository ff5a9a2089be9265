#include "exif.h"

#include <cstdint>
#include <regex>

namespace {

constexpr int ORIENTATION = 0x0112, SHORT = 3;
constexpr std::size_t ENTRY = 12;

// The value at an offset in a TIFF block, in the block's byte order; 0 past its end.
std::uint32_t number(std::string_view tiff, std::size_t at, int bytes) {
    if (at + bytes > tiff.size()) return 0;
    std::uint32_t value = 0;
    for (int i = 0; i < bytes; ++i)
        value = value << 8 | static_cast<unsigned char>(tiff[at + (tiff[0] == 'I' ? bytes - 1 - i : i)]);
    return value;
}

}  // namespace

int orientation_of_exif(std::string_view tiff) {
    if (tiff.size() < 8 || (tiff.substr(0, 2) != "II" && tiff.substr(0, 2) != "MM")) return 0;
    const std::size_t directory = number(tiff, 4, 4);
    const std::size_t entries = number(tiff, directory, 2);
    for (std::size_t entry = directory + 2; entry < directory + 2 + entries * ENTRY; entry += ENTRY)
        if (number(tiff, entry, 2) == ORIENTATION && number(tiff, entry + 2, 2) == SHORT)
            return int(number(tiff, entry + 8, 2));
    return 0;
}

int orientation_of_xmp(std::string_view xmp) {
    static const std::regex pattern("tiff:Orientation(=\"|>)([0-9])");
    std::match_results<std::string_view::const_iterator> match;
    return std::regex_search(xmp.begin(), xmp.end(), match, pattern) ? *match[2].first - '0' : 0;
}
