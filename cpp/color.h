// A picture's colours as a person sees them.
#pragma once

#include "picture.h"

// Return it opaque, in 1 channel of grey or 3 of RGB.
Picture in_channels(const Picture& picture, int channels);
