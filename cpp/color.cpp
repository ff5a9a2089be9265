// Pillow's convert("L") and convert("RGB"), and _on_paper of handler/classifier/image/decode.py, in the same integer steps.
#include "color.h"

#include <algorithm>

#include "resample.h"

namespace {

constexpr int WHITE = 255, BLACK = 0;
constexpr int INK_SAMPLE = 64;     // pixels a side in which a transparent picture's ink is weighed
constexpr double DARK_INK = 0.01;  // the share of dark in the ink from which a picture shows on white paper

int divided_by_255(int value) { return ((value + 128) + ((value + 128) >> 8)) >> 8; }

std::uint8_t grey_of(const std::uint8_t* rgb) {
    return std::uint8_t((19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 32768) >> 16);
}

bool is_grey(const Picture& picture) { return picture.channels <= 2; }
bool has_alpha(const Picture& picture) { return picture.channels % 2 == 0; }

Picture with_channels(const Picture& picture, int channels) {
    Picture out(picture.height, picture.width, channels);
    for (std::size_t i = 0; i < picture.count(); ++i) {
        const auto* from = &picture.pixels[i * picture.channels];
        for (int c = 0; c < std::min(channels, 3); ++c) out.pixels[i * channels + c] = from[is_grey(picture) ? 0 : c];
        if (channels == 1 && !is_grey(picture)) out.pixels[i] = grey_of(from);
        if (channels == 4) out.pixels[i * channels + 3] = from[picture.channels - 1];
    }
    return out;
}

// Colours weighted by their opacity: what can be resized without what is invisible shining through.
Picture premultiplied(Picture rgba) {
    for (std::size_t i = 0; i < rgba.pixels.size(); ++i)
        if (i % 4 != 3) rgba.pixels[i] = std::uint8_t(divided_by_255(rgba.pixels[i] * rgba.pixels[i / 4 * 4 + 3]));
    return rgba;
}

Picture unmultiplied(Picture rgba) {
    for (std::size_t i = 0; i < rgba.pixels.size(); ++i)
        if (const int alpha = rgba.pixels[i / 4 * 4 + 3]; i % 4 != 3 && alpha != 0 && alpha != 255)
            rgba.pixels[i] = std::uint8_t(std::min(255, 255 * rgba.pixels[i] / alpha));
    return rgba;
}

// Whether hardly any of what can be seen is darker than mid-grey: it would vanish on white paper.
bool is_chalk(const Picture& rgba) {
    const bool as_it_is = rgba.width == INK_SAMPLE && rgba.height == INK_SAMPLE;
    const Picture sample =
        as_it_is ? rgba : unmultiplied(resize(premultiplied(rgba), INK_SAMPLE, INK_SAMPLE, Filter::box));
    double ink = 0, dark = 0;
    for (std::size_t i = 0; i < sample.pixels.size(); i += 4) {
        ink += sample.pixels[i + 3];
        if (grey_of(&sample.pixels[i]) <= WHITE / 2) dark += sample.pixels[i + 3];
    }
    return ink > 0 && dark < DARK_INK * ink;
}

Picture on_paper(const Picture& rgba) {
    const int paper = is_chalk(rgba) ? BLACK : WHITE;
    Picture rgb(rgba.height, rgba.width, 3);
    for (std::size_t i = 0; i < rgba.count(); ++i) {
        const int alpha = rgba.pixels[4 * i + 3];
        for (std::size_t c = 0; c < 3; ++c)
            rgb.pixels[3 * i + c] =
                std::uint8_t(divided_by_255(paper * (255 - alpha) + rgba.pixels[4 * i + c] * alpha));
    }
    return rgb;
}

}  // namespace

Picture in_channels(const Picture& picture, int channels) {
    return with_channels(has_alpha(picture) ? on_paper(with_channels(picture, 4)) : picture, channels);
}
