// The orientation of an image as in EXIF, 1 to 8; 0 if it is missing or cannot be read.
#pragma once

#include <string_view>

int orientation_of_exif(std::string_view tiff);
int orientation_of_xmp(std::string_view xmp);
