#include "options.h"

#include <cstdlib>
#include <stdexcept>

namespace {

int repeats_of(const std::string& text) {
    char* end = nullptr;
    const long repeats = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end || repeats < 1 || repeats > 1'000'000)
        throw std::invalid_argument("--time is '" + text + "'; give a number of repeats from 1 to 1000000");
    return int(repeats);
}

}  // namespace

Options options_of(int count, char** arguments) {
    Options options;
    std::vector<std::string> files;
    bool only_files = false;  // after --, so that a file's name may start with a dash
    for (int i = 1; i < count; ++i) {
        const std::string one = arguments[i];
        if (only_files || one.empty() || one[0] != '-') files.push_back(one);
        else if (one == "--") only_files = true;
        else if (one == "--outputs") options.outputs = true;
        else if (one == "--pixels") options.pixels = true;
        else if (one == "--time") options.time = repeats_of(i + 1 < count ? arguments[++i] : "");
        else throw std::invalid_argument("unknown option " + one);
    }
    if (files.size() < 2) throw std::invalid_argument("give an exported model and at least one image");
    options.model = files.front();
    options.images.assign(files.begin() + 1, files.end());
    return options;
}
