// What an image file says about itself that stb_image does not report.
#pragma once

#include "image.h"

enum class Format { png, jpeg, bmp, gif };

struct Metadata {
    Format format;
    int orientation = 1;             // EXIF's: 1 is upright
    bool grey_in_16_bits = false;    // PNG: stb_image would truncate such levels, not scale them
    bool transparency = false;       // GIF: some of it may be transparent
};

// Read a file's blocks. Throws BadImage if the format is none of these four, a checksum is wrong, or
// stb_image would read the file differently from Pillow.
Metadata metadata_of(const Bytes& file);
