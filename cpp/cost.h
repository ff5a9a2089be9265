// Limits on what an image may cost, and the error for exceeding them. The reasons for the numbers are in
// handler/classifier/image/limits.py; a test compares this program with it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "image.h"

constexpr std::int64_t MAX_PIXELS = std::int64_t(1) << 26;
constexpr std::int64_t MAX_SIDE = 1 << 15;
constexpr int MAX_SCANS = 100;

[[noreturn]] inline void refuse_as_too_large(const std::string& size) {
    throw BadImage("the image is too large (" + size + "); send at most " + std::to_string(MAX_PIXELS) +
                     " pixels, " + std::to_string(MAX_SIDE) + " per side");
}

inline void refuse_large(std::int64_t width, std::int64_t height) {
    if (width < 1 || height < 1) throw BadImage("the image has no pixels; send a whole PNG, JPEG, BMP or GIF file");
    if (std::max(width, height) > MAX_SIDE || width * height > MAX_PIXELS)
        refuse_as_too_large(std::to_string(width) + " x " + std::to_string(height) + " pixels");
}
