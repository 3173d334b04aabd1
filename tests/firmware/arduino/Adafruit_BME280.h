#pragma once
#include "Wire.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
struct Adafruit_BME280 {
  bool begin(uint8_t, TwoWire *) { return getenv("NO_BME280") == nullptr; }
  float readTemperature() { return 21.456f; }
  float readHumidity() { return getenv("NO_HUMIDITY") ? NAN : 44.14f; }
  float readPressure() { return 100653.27f; }
};
