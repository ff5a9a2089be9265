#include "contract.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "centring.h"
#include "color.h"
#include "cost.h"
#include "resample.h"

namespace {

constexpr int GREY_LEVELS = 256;

int channels_of(const std::string& color) {
    if (color == "grayscale") return 1;
    if (color == "rgb") return 3;
    throw BadModel("its contract's color is '" + color + "'; use grayscale or rgb");
}

// As in torchvision: ToTensor divides by 255, Normalize subtracts the mean and divides by the deviation.
std::vector<float> levels_of(float mean, float std) {
    std::vector<float> levels;
    for (int level = 0; level < GREY_LEVELS; ++level)
        levels.push_back((float(level) / float(GREY_LEVELS - 1) - mean) / std);
    return levels;
}

}  // namespace

Contract Contract::from_json(const std::string& json) {
    if (json.empty()) throw BadModel("it has no contract; export it again");
    try {
        const auto spec = nlohmann::json::parse(json);
        Contract contract;
        contract.channels = channels_of(spec.at("color"));
        std::tie(contract.height, contract.width) = spec.at("size").get<std::pair<int, int>>();
        if (!spec.at("resize").is_null()) contract.resize_ = spec.at("resize").get<int>();
        // Older files have no such key.
        if (spec.contains("ink") && !spec.at("ink").is_null()) contract.ink_ = spec.at("ink").get<int>();
        contract.labels = spec.at("labels").get<std::vector<std::string>>();
        for (int c = 0; c < contract.channels; ++c)
            contract.levels_.push_back(levels_of(spec.at("mean").at(c), spec.at("std").at(c)));
        if (contract.height < 1 || contract.width < 1 || contract.labels.empty() ||
            contract.resize_.value_or(contract.height) < contract.height ||
            contract.resize_.value_or(contract.width) < contract.width || contract.ink_.value_or(1) < 1 ||
            (contract.ink_ && (contract.channels != 1 || contract.resize_)))
            throw BadModel("its contract has an impossible size or no labels; export it again");
        return contract;
    } catch (const nlohmann::json::exception& error) {
        throw BadModel(std::string("its contract cannot be read (") + error.what() + "); export it again");
    }
}

Image Contract::fit(const Image& image) const {
    const Image seen = in_channels(image, channels);
    if (ink_) return centred(seen, width, height, *ink_);
    if (!resize_) return resize(seen, width, height, Filter::bilinear);
    const auto [shorter, longer] = std::minmax(seen.width, seen.height);
    const std::int64_t scaled = std::int64_t(double(std::int64_t(*resize_) * longer) / shorter);  // as torchvision
    if (scaled * *resize_ > MAX_PIXELS)
        refuse_as_too_large(std::to_string(seen.width) + " x " + std::to_string(seen.height) +
                            " pixels, scaled to " + std::to_string(*resize_) + " x " + std::to_string(scaled));
    const bool portrait = seen.width <= seen.height;
    const Image large =
        resize(seen, portrait ? *resize_ : int(scaled), portrait ? int(scaled) : *resize_, Filter::bilinear);
    // Halves are rounded to the even number, as in Python.
    return cropped(large, int(std::nearbyint((large.width - width) / 2.0)),
                   int(std::nearbyint((large.height - height) / 2.0)), width, height);
}

void Contract::normalize(const Image& image, float* to) const {
    for (int c = 0; c < channels; ++c)
        for (std::size_t i = 0; i < image.count(); ++i)
            *to++ = levels_[c][image.pixels[i * channels + c]];
}
