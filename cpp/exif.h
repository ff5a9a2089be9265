// How a camera was held: EXIF's orientation, 1 to 8; 0 where nothing is said, or nothing that can be read.
#pragma once

#include <string_view>

int orientation_of_exif(std::string_view tiff);
int orientation_of_xmp(std::string_view xmp);
