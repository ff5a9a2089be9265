// An image in memory, and the error for one that cannot be read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

using Bytes = std::vector<std::uint8_t>;

// uint8 pixels (height, width, channels), row by row. Channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
struct Image {
    int height = 0;
    int width = 0;
    int channels = 0;
    Bytes pixels;

    Image(int height, int width, int channels)
        : height(height), width(width), channels(channels), pixels(std::size_t(height) * width * channels) {}

    std::uint8_t* at(int y, int x) { return &pixels[(std::size_t(y) * width + x) * channels]; }
    const std::uint8_t* at(int y, int x) const { return &pixels[(std::size_t(y) * width + x) * channels]; }
    std::size_t count() const { return std::size_t(height) * width; }
};

// The text says what came and what to send.
struct BadImage : std::runtime_error {
    using std::runtime_error::runtime_error;
};
