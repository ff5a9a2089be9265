// How long loading, reading and classifying take, on one thread.
#pragma once

#include <string>

#include "model.h"

class Stopwatch {
  public:
    Stopwatch();
    double seconds() const;

  private:
    double start_;
};

// Return JSON: load_seconds as given; read_seconds, from a file in memory to pixels; seconds_per_image,
// from pixels to outputs, in batches of 1 and of 32. Each is the median of the repeats, warm.
std::string timings(const Model& model, const Bytes& file, double load_seconds, int repeats);
