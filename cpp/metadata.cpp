#include "metadata.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>

#include "exif.h"
#include "cost.h"

namespace {

constexpr const char* SEND = "; send a whole PNG, JPEG, BMP or GIF file";

std::string_view text_of(const Bytes& file, std::size_t begin, std::size_t size) {
    if (begin >= file.size()) return {};
    return {reinterpret_cast<const char*>(&file[begin]), std::min(size, file.size() - begin)};
}

bool starts(std::string_view text, std::string_view with) { return text.substr(0, with.size()) == with; }

std::uint32_t big_endian(const Bytes& file, std::size_t at, int bytes) {
    std::uint32_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | file[at + i];
    return value;
}

std::uint32_t little_endian(const Bytes& file, std::size_t at, int bytes) {
    std::uint32_t value = 0;
    for (int i = bytes; i-- > 0;) value = value << 8 | file[at + i];
    return value;
}

[[noreturn]] void refuse_unknown(const Bytes& file) {
    std::string start;
    for (std::size_t i = 0; i < std::min<std::size_t>(4, file.size()); ++i) {
        char shown[5];
        std::snprintf(shown, sizeof shown, file[i] > 31 && file[i] < 127 ? "%c" : "\\x%02x", file[i]);
        start += shown;
    }
    throw BadImage("cannot read " + std::to_string(file.size()) + " bytes starting '" + start +
                     "' as an image" + SEND);
}

// --- PNG: https://www.w3.org/TR/png-3/ ---------------------------------------------------------------

constexpr std::string_view PNG_SIGNATURE = "\x89PNG\r\n\x1a\n";

std::uint32_t crc32(std::string_view data) {
    static const auto table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t byte = 0; byte < made.size(); ++byte) {
            std::uint32_t value = byte;
            for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320U : 0);
            made[byte] = value;
        }
        return made;
    }();
    std::uint32_t crc = ~0U;
    for (unsigned char byte : data) crc = crc >> 8 ^ table[(crc ^ byte) & 0xff];
    return ~crc;
}

// The orientation in a PNG's XMP text. Compressed texts are not read; those with an orientation are refused.
int orientation_of_text(std::string_view kind, std::string_view data) {
    const bool profile = starts(data, std::string_view("Raw profile type exif\0", 22));
    const std::string_view xmp("XML:com.adobe.xmp\0", 18);
    const bool packed_xmp = kind == "iTXt" && starts(data, xmp) && data.size() > xmp.size() && data[xmp.size()];
    if (profile || packed_xmp)
        throw BadImage("the PNG image has its orientation in a text that this program does not read; save it "
                         "again, upright and without metadata");
    return kind == "iTXt" && starts(data, xmp) ? orientation_of_xmp(data) : 0;
}

Metadata metadata_of_png(const Bytes& file) {
    Metadata metadata{Format::png};
    int exif = 0, xmp = 0;
    for (std::size_t at = PNG_SIGNATURE.size(); at + 12 <= file.size();) {
        const std::size_t size = big_endian(file, at, 4);
        if (at + 12 + size > file.size()) break;  // truncated: the decoder reports it
        const auto kind = text_of(file, at + 4, 4), data = text_of(file, at + 8, size);
        if (crc32(text_of(file, at + 4, 4 + size)) != big_endian(file, at + 8 + size, 4))
            throw BadImage("the PNG image is damaged (wrong checksum of its " + std::string(kind) +
                             "); send the whole file");
        if (kind == "IHDR" && size == 13) {
            refuse_large(big_endian(file, at + 8, 4), big_endian(file, at + 12, 4));  // some are too large for stb_image
            metadata.grey_in_16_bits = data[8] == 16 && data[9] == 0;
        }
        if (kind == "CgBI") throw BadImage("the PNG image is in Apple's own format; send a standard PNG");
        if (kind == "eXIf") exif = orientation_of_exif(data);
        if (kind == "tEXt" || kind == "zTXt" || kind == "iTXt")
            if (int found = orientation_of_text(kind, data)) xmp = found;
        if (kind == "IEND") break;
        at += 12 + size;
    }
    metadata.orientation = exif ? exif : xmp;
    return metadata;
}

// --- JPEG: ITU T.81, annex B; its Exif: CIPA DC-008 --------------------------------------------------

bool is_start_of_frame(int marker) {
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

void refuse_many_scans(const Bytes& file) {
    int scans = 0;
    for (std::size_t at = 0; at + 1 < file.size(); ++at) scans += file[at] == 0xff && file[at + 1] == 0xda;
    if (scans > MAX_SCANS)
        throw BadImage("the JPEG image has " + std::to_string(scans) + " scans; send one with at most " +
                         std::to_string(MAX_SCANS));
}

// A Huffman table has at most 256 codes; stb_image writes past the end of its own if a file says more.
void refuse_broken_tables(std::string_view data) {
    constexpr std::size_t HEADER = 17, LENGTHS = 16, CODES = 256;
    while (data.size() >= HEADER) {
        std::size_t codes = 0;
        for (std::size_t i = 1; i <= LENGTHS; ++i) codes += static_cast<unsigned char>(data[i]);
        if (codes > CODES) throw BadImage("the JPEG image is damaged (a table is too long); send the whole file");
        data.remove_prefix(std::min(data.size(), HEADER + codes));
    }
}

// Markers without a segment: for a byte 0xff in the pixels, and for a division of the pixels.
bool stands_alone(int marker) { return marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8); }

Metadata metadata_of_jpeg(const Bytes& file) {
    constexpr std::string_view EXIF("Exif\0\0", 6), XMP("http://ns.adobe.com/xap/1.0/\0", 29);
    refuse_many_scans(file);
    Metadata metadata{Format::jpeg};
    int exif = 0, xmp = 0, components = 0;
    bool adobe = false;
    for (std::size_t at = 2; at + 4 <= file.size();) {
        const int marker = file[at + 1];
        if (file[at] != 0xff || marker == 0xff) { ++at; continue; }  // pixels or padding
        if (stands_alone(marker)) { at += 2; continue; }
        if (marker == 0xd9) break;  // the end; what follows is another image
        const std::size_t size = big_endian(file, at + 2, 2);
        const auto data = size < 2 ? std::string_view() : text_of(file, at + 4, size - 2);
        if (marker == 0xc4) refuse_broken_tables(data);
        if (marker == 0xe1 && starts(data, EXIF) && !exif) exif = orientation_of_exif(data.substr(EXIF.size()));
        if (marker == 0xe1 && starts(data, XMP)) xmp = orientation_of_xmp(data);
        if (marker == 0xee && starts(data, "Adobe")) adobe = true;
        if (is_start_of_frame(marker) && data.size() > 5) components = static_cast<unsigned char>(data[5]);
        at += 2 + size;
    }
    if (components == 4 && !adobe)
        throw BadImage("the JPEG image has four colours and does not say which; send it in RGB");
    metadata.orientation = exif ? exif : xmp;
    return metadata;
}

// --- BMP and GIF -------------------------------------------------------------------------------------

// stb_image misreads the palettes of the oldest headers, and rounds 16-bit colours in its own way.
Metadata metadata_of_bmp(const Bytes& file) {
    constexpr std::size_t HEADER_SIZE = 14, BITS = 28, COMPRESSION = 30, OLDEST = 12;
    if (file.size() < COMPRESSION + 4) refuse_unknown(file);
    if (little_endian(file, HEADER_SIZE, 4) <= OLDEST)
        throw BadImage("the BMP image has a header of the oldest kind; save it again, or send a PNG");
    const auto bits = little_endian(file, BITS, 2), compression = little_endian(file, COMPRESSION, 4);
    if (compression != 0 || bits == 16)
        throw BadImage("the BMP image has " + std::to_string(bits) + " bits per pixel and compression " +
                         std::to_string(compression) + "; send it uncompressed with 1, 4, 8, 24 or 32 bits");
    return {Format::bmp};
}

Metadata metadata_of_gif(const Bytes& file) {
    constexpr std::size_t HEADER = 13;
    Metadata metadata{Format::gif};
    if (file.size() < HEADER) refuse_unknown(file);
    const int flags = file[10];
    std::size_t at = HEADER + (flags & 0x80 ? std::size_t(3) << ((flags & 7) + 1) : 0);
    while (at + 3 < file.size() && file[at] == 0x21) {  // blocks before the first frame
        if (file[at + 1] == 0xf9) metadata.transparency = file[at + 3] & 1;
        for (at += 2; at < file.size() && file[at]; at += 1 + file[at]) {}
        ++at;
    }
    return metadata;
}

}  // namespace

Metadata metadata_of(const Bytes& file) {
    const auto start = text_of(file, 0, 8);
    if (start == PNG_SIGNATURE) return metadata_of_png(file);
    if (starts(start, "\xff\xd8\xff")) return metadata_of_jpeg(file);
    if (starts(start, "BM")) return metadata_of_bmp(file);
    if (starts(start, "GIF8")) return metadata_of_gif(file);
    refuse_unknown(file);
}
