#pragma once
#include <stddef.h>
#include <stdint.h>
struct Preferences {
  bool begin(const char *, bool) { return true; }
  uint32_t getUInt(const char *, uint32_t) { return 6; }
  size_t putUInt(const char *, uint32_t) { return 4; }
  float getFloat(const char *, float value) { return value; }
  size_t putFloat(const char *, float) { return 4; }
};
