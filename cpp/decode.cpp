#include "decode.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include <stb/stb_image.h>

#include "cost.h"
#include "metadata.h"

namespace {

// stb_image fills a truncated file up with zeros. So it reads through this, which notices.
struct Source {
    const Bytes& file;
    std::size_t at = 0;
    bool overrun = false;

    static int read(void* self, char* to, int size) {
        auto& from = *static_cast<Source*>(self);
        const auto count = std::min(std::size_t(size), from.file.size() - from.at);
        std::memcpy(to, from.file.data() + from.at, count);
        from.at += count;
        if (count == 0) from.overrun = true;
        return int(count);
    }

    static void skip(void* self, int size) {
        auto& from = *static_cast<Source*>(self);
        // Also backwards: stb_image may go back to what it has read.
        from.at = std::size_t(std::min<std::int64_t>(std::int64_t(from.at) + size, std::int64_t(from.file.size())));
    }

    static int eof(void* self) {
        const auto& from = *static_cast<Source*>(self);
        return from.at == from.file.size();
    }
};

constexpr stbi_io_callbacks CALLBACKS{Source::read, Source::skip, Source::eof};

struct Free {
    void operator()(void* memory) const { stbi_image_free(memory); }
};

[[noreturn]] void refuse(const Bytes& file, const std::string& why) {
    throw BadImage("the image in " + std::to_string(file.size()) +
                     " bytes is truncated, damaged or of an unsupported kind (" + why +
                     "); send the whole file");
}

// Checked in the header, before a pixel is decoded.
void refuse_costly(const Bytes& file) {
    Source source{file};
    int width = 0, height = 0, channels = 0;
    if (!stbi_info_from_callbacks(&CALLBACKS, &source, &width, &height, &channels))
        refuse(file, stbi_failure_reason());
    refuse_large(width, height);
}

Image decode_8_bits(const Bytes& file, int wanted) {
    Source source{file};
    int width = 0, height = 0, stored = 0;
    const std::unique_ptr<stbi_uc, Free> pixels(
        stbi_load_from_callbacks(&CALLBACKS, &source, &width, &height, &stored, wanted));
    if (!pixels) refuse(file, stbi_failure_reason());
    if (source.overrun) refuse(file, "it ends too early");
    Image image(height, width, wanted ? wanted : stored);
    std::memcpy(image.pixels.data(), pixels.get(), image.pixels.size());
    return image;
}

// 16-bit grey levels are scaled, not truncated, in the same float32 steps as handler/classifier/image/decode.py.
Image decode_16_bits(const Bytes& file) {
    Source source{file};
    int width = 0, height = 0, stored = 0;
    const std::unique_ptr<stbi_us, Free> levels(
        stbi_load_16_from_callbacks(&CALLBACKS, &source, &width, &height, &stored, 1));
    if (!levels) refuse(file, stbi_failure_reason());
    if (source.overrun) refuse(file, "it ends too early");
    Image image(height, width, 1);
    const float scale = float(255.0 / 65535.0);
    for (std::size_t i = 0; i < image.count(); ++i)
        image.pixels[i] = std::uint8_t(std::rint(float(levels.get()[i]) * scale));
    return image;
}

// stb_image gives each GIF an alpha channel. It paints pixels outside the first frame in the background colour,
// unless that is colour 0: then it leaves them transparent.
Image decode_gif(Bytes file, bool transparency) {
    constexpr std::size_t BACKGROUND = 11;
    file[BACKGROUND] = 0;
    Image image = decode_8_bits(file, 4);
    if (transparency) return image;
    Image opaque(image.height, image.width, 3);
    for (std::size_t i = 0; i < image.count(); ++i) {
        if (image.pixels[4 * i + 3] == 0) refuse(file, "its first frame does not fill it");
        std::memcpy(&opaque.pixels[3 * i], &image.pixels[4 * i], 3);
    }
    return opaque;
}

Image decode_as(const Metadata& metadata, Bytes file) {
    if (metadata.grey_in_16_bits) return decode_16_bits(file);
    if (metadata.format == Format::gif) return decode_gif(std::move(file), metadata.transparency);
    // The fourth byte of a BMP's pixel has no meaning, but stb_image takes it for alpha.
    return decode_8_bits(file, metadata.format == Format::bmp ? 3 : 0);
}

// EXIF's orientations: 1 upright; 2 to 4 mirrored; from 5 on rows and columns are exchanged.
Image turned(const Image& lying, int orientation) {
    if (orientation < 2 || orientation > 8) return lying;
    const bool exchanged = orientation >= 5;
    const bool from_below = std::strchr("\3\4\6\7", orientation), from_right = std::strchr("\2\3\7\10", orientation);
    Image upright(exchanged ? lying.width : lying.height, exchanged ? lying.height : lying.width, lying.channels);
    for (int y = 0; y < upright.height; ++y)
        for (int x = 0; x < upright.width; ++x) {
            const int row = exchanged ? x : y, column = exchanged ? y : x;
            std::memcpy(upright.at(y, x),
                        lying.at(from_below ? lying.height - 1 - row : row,
                                 from_right ? lying.width - 1 - column : column),
                        lying.channels);
        }
    return upright;
}

}  // namespace

Image decode(Bytes file) {
    if (file.empty()) throw BadImage("the file has no content; send a whole PNG, JPEG, BMP or GIF file");
    const Metadata metadata = metadata_of(file);
    refuse_costly(file);
    return turned(decode_as(metadata, std::move(file)), metadata.orientation);
}
