// Pillow's convert("L") and convert("RGB"), and _on_paper of handler/classifier/image/decode.py, in the same integer steps.
#include "color.h"

#include <algorithm>

#include "resample.h"

namespace {

constexpr int WHITE = 255, BLACK = 0;
constexpr int INK_SAMPLE = 64;     // side of the sample from which a transparent image's ink is measured
constexpr double DARK_INK = 0.01;  // the share of dark ink from which an image is visible on white

int divided_by_255(int value) { return ((value + 128) + ((value + 128) >> 8)) >> 8; }

std::uint8_t grey_of(const std::uint8_t* rgb) {
    return std::uint8_t((19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 32768) >> 16);
}

bool is_grey(const Image& image) { return image.channels <= 2; }
bool has_alpha(const Image& image) { return image.channels % 2 == 0; }

Image with_channels(const Image& image, int channels) {
    Image out(image.height, image.width, channels);
    for (std::size_t i = 0; i < image.count(); ++i) {
        const auto* from = &image.pixels[i * image.channels];
        for (int c = 0; c < std::min(channels, 3); ++c) out.pixels[i * channels + c] = from[is_grey(image) ? 0 : c];
        if (channels == 1 && !is_grey(image)) out.pixels[i] = grey_of(from);
        if (channels == 4) out.pixels[i * channels + 3] = from[image.channels - 1];
    }
    return out;
}

// Colours weighted by their opacity, so that resizing does not make invisible ones visible.
Image premultiplied(Image rgba) {
    for (std::size_t i = 0; i < rgba.pixels.size(); ++i)
        if (i % 4 != 3) rgba.pixels[i] = std::uint8_t(divided_by_255(rgba.pixels[i] * rgba.pixels[i / 4 * 4 + 3]));
    return rgba;
}

Image unmultiplied(Image rgba) {
    for (std::size_t i = 0; i < rgba.pixels.size(); ++i)
        if (const int alpha = rgba.pixels[i / 4 * 4 + 3]; i % 4 != 3 && alpha != 0 && alpha != 255)
            rgba.pixels[i] = std::uint8_t(std::min(255, 255 * rgba.pixels[i] / alpha));
    return rgba;
}

// Whether hardly any of what can be seen is darker than mid-grey: it would vanish on white.
bool is_chalk(const Image& rgba) {
    const bool as_it_is = rgba.width == INK_SAMPLE && rgba.height == INK_SAMPLE;
    const Image sample =
        as_it_is ? rgba : unmultiplied(resize(premultiplied(rgba), INK_SAMPLE, INK_SAMPLE, Filter::box));
    double ink = 0, dark = 0;
    for (std::size_t i = 0; i < sample.pixels.size(); i += 4) {
        ink += sample.pixels[i + 3];
        if (grey_of(&sample.pixels[i]) <= WHITE / 2) dark += sample.pixels[i + 3];
    }
    return ink > 0 && dark < DARK_INK * ink;
}

Image on_paper(const Image& rgba) {
    const int paper = is_chalk(rgba) ? BLACK : WHITE;
    Image rgb(rgba.height, rgba.width, 3);
    for (std::size_t i = 0; i < rgba.count(); ++i) {
        const int alpha = rgba.pixels[4 * i + 3];
        for (std::size_t c = 0; c < 3; ++c)
            rgb.pixels[3 * i + c] =
                std::uint8_t(divided_by_255(paper * (255 - alpha) + rgba.pixels[4 * i + c] * alpha));
    }
    return rgb;
}

}  // namespace

Image in_channels(const Image& image, int channels) {
    return with_channels(has_alpha(image) ? on_paper(with_channels(image, 4)) : image, channels);
}
