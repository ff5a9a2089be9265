#include "timing.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include <nlohmann/json.hpp>

#include "decode.h"

namespace {

constexpr int WARM_UP = 10;  // TorchScript optimizes in its first runs of each shape
constexpr std::size_t BATCHES[] = {1, 32};

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median_seconds(int repeats, const std::function<void()>& run) {
    std::vector<double> seconds;
    for (int i = 0; i < WARM_UP; ++i) run();
    for (int i = 0; i < repeats; ++i) {
        const Stopwatch watch;
        run();
        seconds.push_back(watch.seconds());
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
}

}  // namespace

Stopwatch::Stopwatch() : start_(now()) {}

double Stopwatch::seconds() const { return now() - start_; }

std::string timings(const Model& model, const Bytes& file, double load_seconds, int repeats) {
    nlohmann::ordered_json json{{"threads", 1}, {"repeats", repeats}, {"load_seconds", load_seconds}};
    json["read_seconds"] = median_seconds(repeats, [&] { model.contract().fit(decode(file)); });
    const Image image = model.contract().fit(decode(file));
    for (const auto batch : BATCHES) {
        const std::vector<Image> images(batch, image);
        json["seconds_per_image"][std::to_string(batch)] =
            median_seconds(repeats, [&] { model.outputs(images); }) / double(batch);
    }
    return json.dump();
}
