#pragma once
#include <stddef.h>
#include <stdint.h>

#include "Arduino.h"
struct Preferences {
  bool begin(const char *, bool) { return true; }
  uint32_t getUInt(const char *, uint32_t) { return 6; }
  size_t putUInt(const char *, uint32_t) { return 4; }
  float getFloat(const char *, float value) { return value; }
  size_t putFloat(const char *, float) { return 4; }
  size_t getString(const char *name, char *value, size_t length) {
    const char *given = getenv(name[0] == 's' ? "GIVEN_SSID" : "GIVEN_PASSWORD");
    snprintf(value, length, "%s", given ? given : "");
    return strlen(value);
  }
  size_t putString(const char *name, const String &value) {
    printf("MEMORY\t0\t0\t%s=%s\n", name, value.c_str());
    return value.length();
  }
};
