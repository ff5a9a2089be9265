// Classify images with an exported model, without Python: exported/classify model.pt image.png ...
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

#include <sys/stat.h>

#include "decode.h"
#include "model.h"
#include "options.h"
#include "timing.h"

namespace {

constexpr std::size_t BATCH = 32;

Bytes bytes_of(const std::string& path) {
    struct stat found {};
    errno = 0;
    if (stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode)) errno = EISDIR;
    std::ifstream file;
    if (errno == 0) file.open(path, std::ios::binary);
    if (errno != 0 || !file) throw BadImage(std::string("cannot read it: ") + std::strerror(errno));
    return {std::istreambuf_iterator<char>(file), {}};
}

std::optional<Image> read(const std::string& path, const Contract& contract) {
    try {
        return contract.fit(decode(bytes_of(path)));
    } catch (const BadImage& error) {
        std::cerr << "error: " << path << ": " << error.what() << "\n";
    } catch (const std::bad_alloc&) {
        std::cerr << "error: " << path << ": there is not enough memory for this image\n";
    }
    return {};
}

void print_outputs(const std::vector<float>& outputs) {
    for (std::size_t i = 0; i < outputs.size(); ++i) std::printf("%c%.9g", i ? ' ' : '\t', outputs[i]);
}

void print_pixels(const Bytes& pixels) {
    std::printf("\t");
    for (int pixel : pixels) std::printf("%02x", pixel);
}

void print(const std::string& path, const Image& image, const std::vector<float>& outputs,
           const Model& model, const Options& options) {
    const auto best = std::max_element(outputs.begin(), outputs.end()) - outputs.begin();
    if (options.images.size() > 1) std::printf("%s\t", path.c_str());
    std::printf("%s", model.contract().labels[best].c_str());
    if (options.outputs) print_outputs(outputs);
    if (options.pixels) print_pixels(image.pixels);
    std::printf("\n");
}

// Classify the images that can be read; return how many cannot.
std::size_t answer_batch(const std::vector<std::string>& paths, const Model& model, const Options& options) {
    std::vector<std::string> good;
    std::vector<Image> images;
    for (const auto& path : paths)
        if (auto image = read(path, model.contract())) {
            good.push_back(path);
            images.push_back(std::move(*image));
        }
    if (!images.empty()) {
        const auto outputs = model.outputs(images);
        for (std::size_t i = 0; i < good.size(); ++i) print(good[i], images[i], outputs[i], model, options);
    }
    return paths.size() - good.size();
}

int answer(const Model& model, const Options& options) {
    std::size_t bad = 0;
    for (std::size_t begin = 0; begin < options.images.size(); begin += BATCH) {
        const std::size_t end = std::min(begin + BATCH, options.images.size());
        bad += answer_batch({options.images.begin() + begin, options.images.begin() + end}, model, options);
    }
    return bad ? 1 : 0;
}

int time_it(const Model& model, const Options& options, double load_seconds) {
    try {
        std::puts(timings(model, bytes_of(options.images.front()), load_seconds, options.time).c_str());
        return 0;
    } catch (const BadImage& error) {
        std::cerr << "error: " << options.images.front() << ": " << error.what() << "\n";
        return 1;
    }
}

int run(const Options& options) {
    try {
        const Stopwatch watch;
        const Model model(options.model);
        const double load_seconds = watch.seconds();
        return options.time ? time_it(model, options, load_seconds) : answer(model, options);
    } catch (const BadModel& error) {
        std::cerr << "error: " << options.model << ": " << error.what() << "\n";
        return 1;
    }
}

}  // namespace

int main(int count, char** arguments) {
    try {
        const int status = run(options_of(count, arguments));
        if (std::fflush(stdout) == 0) return status;
        std::cerr << "error: cannot write the answers: " << std::strerror(errno) << "\n";
    } catch (const std::invalid_argument& error) {
        std::cerr << "error: " << error.what() << "\n" << USAGE;
    }
    return 2;
}
