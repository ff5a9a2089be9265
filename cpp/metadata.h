// What an image file says of itself that stb_image does not tell.
#pragma once

#include "image.h"

enum class Format { png, jpeg, bmp, gif };

struct Metadata {
    Format format;
    int orientation = 1;             // EXIF's: 1 is upright
    bool grey_in_16_bits = false;    // PNG: stb_image would cut such levels off, not scale them
    bool transparency = false;       // GIF: some of it may be transparent
};

// Walk through a file's blocks. Throws BadImage where the format is none of these four, where a checksum
// is wrong, or where stb_image would read the file otherwise than Pillow does.
Metadata metadata_of(const Bytes& file);
