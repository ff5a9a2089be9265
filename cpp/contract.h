// The model's input and output: the JSON in the exported file.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "image.h"

// The text says what is wrong with the exported file.
struct BadModel : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Contract {
  public:
    // Throws BadModel, naming the key.
    static Contract from_json(const std::string& json);

    int height, width, channels;
    std::vector<std::string> labels;

    std::size_t values() const { return std::size_t(height) * width * channels; }

    // Bring an image to the contract's size and colour. Throws BadImage.
    Image fit(const Image& image) const;

    // Scale uint8 (H, W, C) into float32 (C, H, W), in the same steps as handler/classifier/contract.py.
    void normalize(const Image& image, float* to) const;

  private:
    std::optional<int> resize_;
    std::optional<int> ink_;  // length in pixels of a drawing's longer side
    std::vector<std::vector<float>> levels_;  // (C, 256): the value of each grey level
};
